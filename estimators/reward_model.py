"""Linear models of the reward, one an action, cross-fitted from sums that are added up chunk by chunk.

Two passes over the rows serve every metric: the first adds up sums of squares of the features by fold and action, and
their products with the rewards; the second predicts. No row is kept in between, and rows by actions by features are
never in memory. A row's prediction comes from models that never saw its fold, and folds keep units whole.

The fit is the ridge regression of ``estimators/penalised.py`` on columns standardised over all rows, the constant not
penalised. Columns are shifted and scaled by those of the first chunk while sums are added up, so that a large level
costs no digits, and standardised exactly afterwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from estimators.inference import EstimationError
from estimators.nuisance_design import BLOCK
from estimators.nuisances import unit_hash
from estimators.penalised import PATH, Penalty, refuse_collinear
from estimators.reward_sums import (
    Codes,
    Cube,
    Matrix,
    Policy,
    RewardSums,
    codes_of,
    features_of,
    policy_of,
    rewards_of,
    scaled,
)

# A spread below this share of a column's size is rounding.
_CONSTANT = 1e-12
_ROOM = 4_000_000  # numbers in hand while penalties are compared


def fold_of(units: ArrayLike, folds: int, seed: int = 0) -> Codes:
    """``(n,)`` folds of rows by a hash of their unit: the same in whatever chunk a row comes.

    Args:
        units: ``(n,)`` integers, rows of one unit alike.
        folds: How many.
        seed: Of the hash.

    Raises:
        EstimationError: Units that are not integers, or no fold.
    """
    keys = np.asarray(units)
    if keys.dtype.kind not in "iu":
        raise EstimationError("units must be integers")
    if folds < 1:
        raise EstimationError("folds must be a whole number of at least 1")
    return (unit_hash(keys, seed) % np.uint64(folds)).astype(np.intp)


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """What the models say of rows.

    Attributes:
        direct: ``(n, rewards)`` mean prediction over the actions that the target policy takes.
        logged: ``(n, rewards)`` prediction for the logged action.
        fitted: ``(n, rewards)`` what the row adds, through the models, to the influence on the sum of ``direct`` over
            all rows (of doubly robust scores, where weights were given); None where it was not asked for. 0 where the
            reward was not seen.
    """

    direct: Matrix
    logged: Matrix
    fitted: Matrix | None


class LinearRewards:
    """Sums of the first pass: ``add`` every chunk, then ``fit``.

    Args:
        actions: Names of the actions, in the order of their codes.
        folds: How many; 1: models predict the rows that they are fitted on.
        rewards: How many rewards are modelled from the same features.
        penalty: As in ``estimators/penalised.py``: ``cross_validated``, ``light``, or a number.
    """

    def __init__(
        self, actions: Sequence[str], *, folds: int = 5, rewards: int = 1, penalty: Penalty = "cross_validated"
    ) -> None:
        if folds < 1:
            raise EstimationError("folds must be a whole number of at least 1")
        self.actions, self.folds, self.rewards, self.penalty = tuple(actions), folds, rewards, penalty
        self._sums: RewardSums | None = None

    def add(
        self,
        x: ArrayLike,
        action: ArrayLike,
        fold: ArrayLike,
        rewards: ArrayLike,
        target: ArrayLike | None = None,
        weight: ArrayLike | None = None,
    ) -> None:
        """Adds a chunk of rows; the order of chunks, not how rows are cut, may move last digits.

        Args:
            x: ``(n, p)`` features from before the action, without a constant.
            action: ``(n,)`` codes of the logged actions.
            fold: ``(n,)`` from 0.
            rewards: ``(n, rewards)`` or ``(n,)``; NaN: not seen, the row is left out of that reward's models.
            target: As in :meth:`FittedRewards.scores`; only needed where the models' own error is.
            weight: ``(n,)`` weights that the residuals of a doubly robust value are given, as far as they were cut:
                where they are whole, predictions and residuals leave no first-order error of the models.

        Raises:
            EstimationError: Arrays that do not fit, codes out of range, or values that are not finite.
        """
        features, codes = features_of(x), codes_of(action, len(self.actions), "logged action")
        folds = codes_of(fold, self.folds, "fold")
        y = rewards_of(rewards, self.rewards)
        if not len(features) == len(codes) == len(folds) == len(y):
            raise EstimationError("features, actions, folds and rewards must have one row each")
        if not len(y):
            return
        if self._sums is None:
            self._sums = RewardSums.of(features, y, self.folds, len(self.actions))
        policy = None if target is None else policy_of(target, len(y), self.actions)
        w = None if weight is None else np.asarray(weight, dtype=np.float64)
        if w is not None and (w.shape != codes.shape or not np.isfinite(w).all()):
            raise EstimationError("weights must be one finite number a row")
        self._sums.add(features, codes, folds, y, policy, w)

    def fit(self) -> FittedRewards:
        """The models.

        Raises:
            EstimationError: No row, or collinear features without a penalty.
        """
        if self._sums is None:
            raise EstimationError("no row has an outcome")
        return _fit(self._sums, self.actions, self.penalty)


@dataclass(frozen=True, slots=True, eq=False)
class FittedRewards:
    """Models by fold and action.

    Attributes:
        actions: Their names.
        shift, per_unit: ``(p,)`` of the coordinates that coefficients are in.
        coef: ``(folds, actions, p + 1, rewards)``, the constant first.
        rows: ``(folds, actions, rewards)`` rows that a model learnt from.
        through: ``(folds, actions, p + 1, rewards)`` direction in which a row's residual moves the sum of predictions
            for the target; None where no target was given.
        penalties: ``(folds, actions, rewards)``.
        corrected: Whether residuals correct the predictions, in part.
    """

    actions: tuple[str, ...]
    shift: NDArray[np.float64]
    per_unit: NDArray[np.float64]
    coef: Cube
    rows: NDArray[np.float64]
    through: Cube | None
    penalties: NDArray[np.float64]
    corrected: bool = False

    @property
    def width(self) -> int:
        """Features and the constant."""
        return int(self.coef.shape[2])

    def scores(
        self,
        x: ArrayLike,
        action: ArrayLike,
        fold: ArrayLike,
        target: ArrayLike,
        rewards: ArrayLike | None = None,
    ) -> Scores:
        """Predictions of a chunk of rows.

        Args:
            x, action, fold: As in :meth:`LinearRewards.add`.
            target: ``(n,)`` codes of the action that the target policy takes, or ``(n, actions)`` its probabilities.
            rewards: As in :meth:`LinearRewards.add`; given, ``fitted`` is made.

        Raises:
            EstimationError: Arrays that do not fit, an action that the target takes and no row outside a fold has, or
                rewards without a target in the first pass.
        """
        features = features_of(x)
        n, n_folds = len(features), self.coef.shape[0]
        codes, folds = codes_of(action, len(self.actions), "logged action"), codes_of(fold, n_folds, "fold")
        policy = policy_of(target, n, self.actions)
        if not len(codes) == len(folds) == n:
            raise EstimationError("features, actions and folds must have one row each")
        # Where nothing corrects the models each must have a row more than it has coefficients.
        self._refuse_untried(folds, policy, 1 if rewards is None or self.corrected else self.width + 1)
        y = None if rewards is None else rewards_of(rewards, self.coef.shape[3])
        if y is not None and self.through is None:
            raise EstimationError("the models' own error needs the target policy in the first pass")
        shape = (n, self.coef.shape[3])
        direct, logged, fitted = np.empty(shape), np.empty(shape), None if y is None else np.empty(shape)
        for start in range(0, n, BLOCK):
            some = slice(start, start + BLOCK)
            z = scaled(features[some], self.shift, self.per_unit)
            logged[some] = _each(z, self.coef, folds[some], codes[some])
            direct[some] = self._direct(z, folds[some], policy[some])
            if y is not None and fitted is not None and self.through is not None:
                rest = np.nan_to_num(y[some] - logged[some], nan=0.0)
                fitted[some] = rest * _each(z, self.through, folds[some], codes[some])
        return Scores(direct, logged, fitted)

    def predict(self, x: ArrayLike, fold: ArrayLike) -> Cube:
        """``(n, actions, rewards)`` predictions for every action; NaN where no row outside the fold has the action."""
        features, folds = features_of(x), codes_of(fold, self.coef.shape[0], "fold")
        out = np.empty((len(features), *self.coef.shape[1::2]))
        z = scaled(features, self.shift, self.per_unit)
        for k in np.unique(folds):
            rows = folds == k
            flat = self.coef[k].transpose(1, 0, 2).reshape(self.width, -1)
            out[rows] = (z[rows] @ flat[1:] + flat[0]).reshape(-1, *out.shape[1:])
            out[rows] = np.where(self.rows[k] > 0.0, out[rows], np.nan)
        return out

    def _direct(self, z: Matrix, folds: Codes, policy: Policy) -> Matrix:
        if policy.ndim == 1:
            return _each(z, self.coef, folds, policy.astype(np.intp))
        out = np.empty((len(z), self.coef.shape[3]))
        for k in np.unique(folds):
            rows = folds == k
            for j in range(self.coef.shape[3]):
                each = z[rows] @ self.coef[k, :, 1:, j].T + self.coef[k, :, 0, j]
                out[rows, j] = np.einsum("na,na->n", each, policy[rows])
        return out

    def _refuse_untried(self, folds: Codes, policy: Policy, least: int) -> None:
        few = self.rows.min(axis=2) < least
        if not few.any():
            return
        if policy.ndim == 1:
            bad = np.unique(policy[few[folds, policy.astype(np.intp)]]).astype(np.intp)
        else:
            bad = np.flatnonzero(((policy > 0.0) & few[folds]).any(axis=0))
        if not len(bad):
            return
        action, rows = self.actions[bad[0]], int(self.rows[:, bad[0]].min())
        if not rows:
            raise EstimationError(
                f"the target policy takes the action '{action}', which no row outside one of the folds has, so its "
                "reward cannot be learnt; log it with some probability, or take fewer folds"
            )
        raise EstimationError(
            f"the target policy takes the action '{action}', whose model has {self.width} coefficients and {rows} "
            f"row{'s' * (rows != 1)} to learn from; take fewer features, or doubly_robust"
        )


def _fit(sums: RewardSums, actions: tuple[str, ...], penalty: Penalty) -> FittedRewards:
    n_folds, width, n_rewards = sums.n_folds, sums.gram.shape[-1], sums.cross.shape[-1]
    to_standard = _standard(sums.gram.sum(axis=0))
    coef = np.zeros((n_folds, len(actions), width, n_rewards))
    through = np.zeros(coef.shape) if sums.has_target else None
    rows, penalties = np.zeros((n_folds, len(actions), n_rewards)), np.zeros((n_folds, len(actions), n_rewards))
    for j in range(n_rewards):
        gram, cross, toward = sums.of_reward(j)
        gram = to_standard @ gram @ to_standard.T
        cross, toward = cross @ to_standard.T, toward @ to_standard.T
        for k in range(n_folds):
            training = [f for f in range(n_folds) if n_folds == 1 or f != k]
            some = gram[training], cross[training]
            rows[k, :, j] = some[0][:, :, 0, 0].sum(axis=0)
            penalties[k, :, j] = _penalties(*some, penalty)
            both = np.stack([some[1].sum(axis=0), toward[k]], axis=-1)
            found = _solve(some[0].sum(axis=0), both, penalties[k, :, j])
            coef[k, :, :, j] = found[..., 0] @ to_standard
            if through is not None:
                # A fold's models learn from all others, so its pull is felt by the rows of those.
                through[training, :, :, j] += found[..., 1] @ to_standard
        coef[:, :, 0, j] += sums.centre[j] * (rows[:, :, j] > 0.0)
    return FittedRewards(actions, sums.shift, sums.per_unit, coef, rows, through, penalties, sums.corrected)


def _penalties(gram: Cube, cross: Cube, penalty: Penalty) -> Matrix:
    """``(actions,)`` penalties from sums by fold and action.

    As :meth:`estimators.penalised.Quadratic.penalty`, for many actions at once.
    """
    rows = gram[:, :, 0, 0]
    n = np.maximum(rows.sum(axis=0), 1.0)
    if isinstance(penalty, int | float):
        return np.full(len(n), float(penalty))
    if penalty == "light":
        return np.asarray(1.0 / n, dtype=np.float64)
    some = max(1, _ROOM // (len(PATH) * gram.shape[-1] ** 2))
    best = np.concatenate([_best(gram[:, a : a + some], cross[:, a : a + some]) for a in range(0, len(n), some)])
    return np.where((rows > 0.0).sum(axis=0) < 2, 1.0 / n, best)


def _best(gram: Cube, cross: Cube) -> Matrix:
    """The penalty on ``PATH`` whose predictions of left-out folds lose least; the greatest of equals."""
    loss = np.zeros((gram.shape[1], len(PATH)))
    for f in range(len(gram)):
        others = [g for g in range(len(gram)) if g != f]
        left, right = gram[others].sum(axis=0)[:, None], cross[others].sum(axis=0)[:, None, :, None]
        b = _solve(left, right, np.broadcast_to(PATH, loss.shape))[..., 0]
        loss += 0.5 * np.einsum("alp,alp->al", b @ gram[f], b) - np.einsum("alp,ap->al", b, cross[f])
    return np.asarray(PATH[len(PATH) - 1 - np.argmin(loss[:, ::-1], axis=1)])


def _solve(gram: Cube, cross: Cube, penalties: Matrix) -> Cube:
    """Ridge coefficients from ``(…, width, width)`` and ``(…, width, k)``; 0 where there is no row."""
    n = gram[..., 0, 0]
    if not penalties.min() > 0.0:
        for cell in np.reshape(gram[n > 0.0], (-1, *gram.shape[-2:])):
            refuse_collinear(cell)
    held = np.diag(np.concatenate([[0.0], np.ones(gram.shape[-1] - 1)]))
    lhs = gram + (n * penalties)[..., None, None] * held
    lhs = np.where((n > 0.0)[..., None, None], lhs, np.eye(gram.shape[-1]))
    return np.asarray(np.linalg.solve(lhs, np.where((n > 0.0)[..., None, None], cross, 0.0)))


def _standard(gram: Matrix) -> Matrix:
    """Takes ``(1, z)`` to standardised columns, those without spread to 0."""
    mean = gram[0] / gram[0, 0]
    square = np.diag(gram) / gram[0, 0]
    variance = square - mean**2
    variance[0] = 0.0
    varies = variance > _CONSTANT * square
    per_unit = np.divide(1.0, np.sqrt(np.maximum(variance, 0.0)), out=np.zeros(len(mean)), where=varies)
    out = np.diag(per_unit)
    out[:, 0] = -mean * per_unit
    out[0, 0] = 1.0
    return out


def _each(z: Matrix, coef: Cube, folds: Codes, codes: Codes) -> Matrix:
    """``(n, rewards)`` products of rows with their own fold's and action's coefficients."""
    mine = coef[folds, codes]
    return np.asarray(np.einsum("np,npm->nm", z, mine[:, 1:]) + mine[:, 0])
