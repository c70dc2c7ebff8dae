"""Ridge regression and penalised logit and probit models, cross-fitted from sums by cell.

The fit minimises mean loss (half squared error, or minus the log likelihood) plus ``penalty / 2`` times the squared
coefficients of the standardised columns; the constant is not penalised. Hoerl and Kennard (1970), *Ridge regression*;
le Cessie and van Houwelingen (1992), *Ridge estimators in logistic regression*. A penalty is

- ``cross_validated``: that of ``PATH`` with the least loss where each piece of the training rows is predicted from the
  others. For the ridge this is exact, from sums; for a logit or probit losses are taken to second order around the fit
  to all rows, which chooses the penalty only: the fit is Newton's method to convergence on its own training rows;
- ``light``: one over the training rows (the ``C = 1`` and ``alpha = 1`` of scikit-learn). Its bias is of the order of
  one over the rows, far below the error, while a cross-validated one's may be of the error's own size;
- a number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from estimators.inference import EstimationError
from estimators.links import Link, link_of
from estimators.nuisance_design import ARMS, Design, Matrix, Vector, add_cross, add_gram

PATH: Vector = np.logspace(-6.0, 1.0, 15)
Penalty = float | Literal["cross_validated", "light"]
_ROUNDS = 60
_SINGULAR = 1e-13
_MANY = 100_000
_LAST = 3e-6  # a last step of this size leaves an error of its square


@dataclass(frozen=True, slots=True, eq=False)
class Fitted:
    """A model of one arm, or of both, fitted for every fold.

    Attributes:
        design: What it was fitted on.
        link: ``linear``, ``logit`` or ``probit``.
        coef: ``(n_folds, width)`` coefficients of the standardised columns, the constant first.
        penalties: ``(n_folds,)`` penalties.
        arms: Arms whose rows it learnt from.
    """

    design: Design
    link: Link
    coef: Matrix
    penalties: Vector
    arms: tuple[int, ...]

    def predict(self) -> Vector:
        """``(n,)`` predictions for all rows, each by its own fold's model."""
        return self.link.mean(self.design.predict(self.coef))


@dataclass(frozen=True, slots=True, eq=False)
class Quadratic:
    """A loss to second order, ``b' gram b / 2 - cross' b``, by piece.

    Attributes:
        gram: ``(m, width, width)``.
        cross: ``(m, width)``.
        rows: ``(m,)`` rows that were summed.
    """

    gram: NDArray[np.float64]
    cross: Matrix
    rows: Vector

    def take(self, pieces: Sequence[int]) -> Quadratic:
        """These pieces."""
        return Quadratic(self.gram[pieces], self.cross[pieces], self.rows[pieces])

    def solve(self, penalties: Vector, without: int | None = None) -> Matrix:
        """``(len(penalties), width)`` minima of the penalised sum, perhaps without one piece.

        Raises:
            EstimationError: Without a penalty, columns that are collinear.
        """
        some = np.arange(len(self.rows)) != without
        gram, cross, n = self.gram[some].sum(axis=0), self.cross[some].sum(axis=0), self.rows[some].sum()
        held = np.diag(np.concatenate([[0.0], np.ones(len(cross) - 1)]))
        lhs = gram + n * penalties[:, None, None] * held
        if not penalties.min() > 0.0:
            refuse_collinear(gram)
        return np.asarray(np.linalg.solve(lhs, np.broadcast_to(cross, (len(penalties), len(cross)))[..., None])[..., 0])

    def penalty(self, kind: Penalty) -> float:
        """The number that a kind of penalty comes to."""
        if kind == "cross_validated":
            return self.best_penalty()
        return 1.0 / float(self.rows.sum()) if kind == "light" else kind

    def best_penalty(self) -> float:
        """The penalty on ``PATH`` whose predictions of left-out pieces lose least; the greatest of equals."""
        some = self.take([int(j) for j in np.flatnonzero(self.rows > 0.0)])
        if len(some.rows) < 2:
            return self.penalty("light")
        loss = np.zeros(len(PATH))
        for j in range(len(some.rows)):
            b = some.solve(PATH, without=j)
            loss += 0.5 * np.einsum("lp,pq,lq->l", b, some.gram[j], b) - b @ some.cross[j]
        return float(PATH[len(PATH) - 1 - int(np.argmin(loss[::-1]))])


def refuse_collinear(gram: Matrix) -> None:
    """Refuses a design whose columns do not have full rank, without a penalty that would hold them."""
    eigen = np.linalg.eigvalsh(gram)
    if not eigen[0] > _SINGULAR * eigen[-1]:
        raise EstimationError("a covariate is constant, or a combination of the others; a penalty above 0 allows that")


def ridge(
    design: Design,
    y: Vector,
    *,
    groups: Sequence[tuple[int, ...]],
    seen: NDArray[np.bool_] | None = None,
    gram: NDArray[np.float64] | None = None,
    penalty: Penalty = "cross_validated",
) -> list[Fitted]:
    """Linear models of ``y``, one for each group of arms, all from one pass over the rows.

    Args:
        design: Covariates by cell.
        y: ``(n,)`` outcome; only ``seen`` rows are looked at.
        groups: Arms to learn from, a model each: ``[(0,), (1,)]`` by arm, ``[(0, 1)]`` over both.
        gram: ``design.gram(seen)`` where it is there already.

    Raises:
        EstimationError: Fewer than two rows to learn from, or collinear columns without a penalty.
    """
    gram = design.gram(seen) if gram is None else gram
    # Centred, so that a large level costs no digits; the constant takes the centre back.
    centre = float(np.mean(y if seen is None else y[seen]))
    cross = design.cross(y - centre, seen)
    models = []
    for arms in groups:
        loss = _by_piece(gram, cross, arms)
        coef, penalties = np.empty((design.n_folds, design.width)), np.empty(design.n_folds)
        for fold in range(design.n_folds):
            mine = loss.take(design.training(fold))
            _enough(mine.rows.sum(), arms)
            penalties[fold] = mine.penalty(penalty)
            coef[fold] = mine.solve(penalties[fold : fold + 1])[0]
        coef[:, 0] += centre
        models.append(Fitted(design, link_of("linear"), coef, penalties, arms))
    return models


def likelihood(
    design: Design,
    y: Vector,
    link: Link,
    *,
    arms: tuple[int, ...] = ARMS,
    seen: NDArray[np.bool_] | None = None,
    penalty: Penalty = "cross_validated",
) -> Fitted:
    """A logit or probit model of ``y`` (from 0 to 1) in these arms.

    Raises:
        EstimationError: Fewer than two rows to learn from, an outcome that does not vary among them, or, without a
            penalty, collinear columns or covariates that tell the outcomes apart without fail.
    """
    every = design.cells(range(design.n_cells // 2), arms)
    mean = _mean(design, y, every, seen)
    start = np.concatenate([[link.inverse(mean)], np.zeros(design.width - 1)])
    rows = design.rows(every)
    n = len(rows) if seen is None else int(seen[rows].sum())
    held = 1.0 / n if isinstance(penalty, str) else penalty
    if n > _MANY:  # one piece leads most of the way
        start = _newton(design, y, link, design.cells([0], arms), start, held, seen).coef
    fit = _newton(design, y, link, every, start, held, seen)
    loss = _by_piece(fit.gram, fit.cross, arms, fit.rows)
    coef, penalties = np.empty((design.n_folds, design.width)), np.empty(design.n_folds)
    for fold in range(design.n_folds):
        training = design.training(fold)
        mine = loss.take(training)
        _enough(mine.rows.sum(), arms)
        penalties[fold] = mine.penalty(penalty)
        if penalty != "cross_validated" and design.n_folds == 1:
            coef[fold] = fit.coef
            continue
        cells = design.cells(training, arms)
        _mean(design, y, cells, seen)
        guess = mine.solve(penalties[fold : fold + 1])[0]
        coef[fold] = _newton(design, y, link, cells, guess, float(penalties[fold]), seen).coef
    return Fitted(design, link, coef, penalties, arms)


@dataclass(frozen=True, slots=True, eq=False)
class _Solution:
    """Coefficients, and the loss to second order around those of one step before, by cell."""

    coef: Vector
    gram: NDArray[np.float64]
    cross: Matrix
    rows: Vector


def _newton(
    design: Design,
    y: Vector,
    link: Link,
    cells: Sequence[int],
    start: Vector,
    penalty: float,
    seen: NDArray[np.bool_] | None,
) -> _Solution:
    """Newton's method with steps halved until the loss falls; the last step leaves about its square."""
    held = np.concatenate([[0.0], np.full(design.width - 1, penalty)])
    b, last, step = start, np.inf, np.zeros(design.width)
    for _ in range(_ROUNDS):
        loss, score, gram, rows = _second_order(design, y, link, cells, b, seen)
        n = rows.sum()
        total = loss + 0.5 * n * float(held @ b**2)
        if not total <= last + 1e-9 * abs(last):
            step = 0.5 * step
            b = b - step
            continue
        hessian = gram.sum(axis=0) + n * np.diag(held)
        if penalty == 0.0:
            refuse_collinear(hessian)
        step = np.linalg.solve(hessian, score.sum(axis=0) - n * held * b)
        last, b = total, b + step
        if np.abs(step).max() <= _LAST * (1.0 + np.abs(b).max()):
            return _Solution(b, gram, score + gram @ (b - step), rows)
    raise EstimationError("the covariates tell the outcomes of a logit or probit model apart without fail")


def _second_order(
    design: Design, y: Vector, link: Link, cells: Sequence[int], b: Vector, seen: NDArray[np.bool_] | None
) -> tuple[float, Matrix, NDArray[np.float64], Vector]:
    """Loss at ``b``, and by cell its negative gradient, its Hessian and the rows that were summed."""
    shape = (design.n_cells, design.width)
    loss, score, gram, rows = 0.0, np.zeros(shape), np.zeros((*shape, design.width)), np.zeros(design.n_cells)
    for cell, index, z in design.blocks(cells, seen):
        part, slope, curvature = link.loss(y[index], z @ b[1:] + b[0])
        loss += part
        add_cross(score[cell], z, slope)
        add_gram(gram[cell], z, curvature)
        rows[cell] += len(index)
    return loss, score, gram, rows


def _by_piece(gram: NDArray[np.float64], cross: Matrix, arms: Sequence[int], rows: Vector | None = None) -> Quadratic:
    count = gram[:, 0, 0] if rows is None else rows
    parts = [(gram[arm::2], cross[arm::2], count[arm::2]) for arm in arms]
    return Quadratic(*(np.sum(part, axis=0) for part in zip(*parts, strict=True)))


def _mean(design: Design, y: Vector, cells: Sequence[int], seen: NDArray[np.bool_] | None) -> float:
    rows = design.rows(cells)
    values = y[rows] if seen is None else y[rows[seen[rows]]]
    if not len(values):
        return 0.5
    if values.min() == values.max():
        raise EstimationError("all rows that a logit or probit model learns from have the same outcome")
    return float(values.mean())


def _enough(rows: float, arms: Sequence[int]) -> None:
    if rows < 2.0:
        where = "both arms" if len(arms) == 2 else ("control", "treatment")[arms[0]]
        raise EstimationError(f"{int(rows)} row{'s' * (rows != 1.0)} of {where} left to fit a model on; two are needed")
