"""Direct method: a model of the reward by action, averaged over what the target policy would do.

``V = mean(sum_a pi(a|x) q(x, a))``. It needs no propensities and has no large weights, but nothing corrects the model:
where rewards are not linear in the features the estimate is off, by an amount that no interval covers. Its error has
the part that comes of which rows were drawn and the part that comes of fitting the models, ``xbar_a' (X'X)^-1 x e`` of
every row that an action's model learnt from (Stefanski and Boos 2002, *The calculus of M-estimation*), with residuals
of models that never saw the row's unit, which makes it a little too wide where an action has few rows. Estimand and
assumptions, but for the propensities: ``estimators/policy_value.py``.
"""

from __future__ import annotations

from collections.abc import Sequence

from numpy.typing import ArrayLike

from estimators.doubly_robust import outcome_fit
from estimators.estimate import Estimate
from estimators.inference import EstimationError
from estimators.ips import logged
from estimators.modelled_rewards import OUTCOME, modelled_rewards
from estimators.penalised import Penalty
from estimators.policy_value import UnitSums, policy_value

NO_INTERVAL = (
    "the direct method with boosting has no error that can be stood behind, as nothing corrects what the trees miss; "
    "take doubly_robust, or outcome linear"
)


def direct_method(
    reward: ArrayLike,
    *,
    features: ArrayLike,
    action: ArrayLike,
    target: ArrayLike,
    actions: Sequence[str] | None = None,
    denominator: ArrayLike | None = None,
    units: ArrayLike | None = None,
    outcome: str = "linear",
    folds: int | ArrayLike = 5,
    penalty: Penalty = "light",
    seed: int = 0,
    alpha: float = 0.05,
) -> Estimate:
    """The target policy's value by predictions alone, minus the logging policy's.

    Args:
        reward: ``(n,)``; NaN: left out.
        features, action, target, actions: As in :func:`estimators.doubly_robust.doubly_robust`.
        denominator: ``(n,)`` of a ratio metric; it is modelled as the numerator is.
        units: ``(n,)`` labels of independent units, rows of one unit alike; None: every row is one.
        outcome: ``linear``; ``boosting`` is refused.
        folds, penalty, seed: As in :func:`estimators.modelled_rewards.modelled_rewards`. A penalty that is not light
            biases the value by as much as its error.
        alpha: Level; intervals are at ``1 - alpha``.

    Returns:
        As :func:`estimators.policy_value.policy_value`, without weights; ``diagnostics`` also ``outcome``,
        ``outcome_fit`` and ``rows_left_out``.

    Raises:
        ValueError: An unknown model.
        EstimationError: Boosting, arrays that do not fit, an action that the target takes and has fewer rows than its
            model has coefficients, fewer than two units, or no variation.
    """
    if outcome not in OUTCOME:
        raise ValueError(f"outcome must be one of {OUTCOME}")
    if outcome == "boosting":
        raise EstimationError(NO_INTERVAL)
    rows = logged(reward, None, denominator=denominator, units=units)
    scores = modelled_rewards(
        rows,
        features,
        action,
        target,
        actions=actions,
        folds=folds,
        penalty=penalty,
        seed=seed,
        own_error=True,
    )
    assert scores.fitted is not None
    counts, ratio = rows.by_unit(None), rows.den is not None
    sums = UnitSums(
        rows=counts,
        logged_num=rows.by_unit(rows.num),
        logged_den=rows.by_unit(rows.den),
        target_num=rows.by_unit(scores.direct[:, 0]),
        target_den=rows.by_unit(scores.direct[:, 1]) if ratio else counts,
        fitted_num=rows.by_unit(scores.fitted[:, 0]),
        fitted_den=rows.by_unit(scores.fitted[:, 1]) if ratio else None,
    )
    more = {"outcome": outcome, "outcome_fit": outcome_fit(rows, scores)}
    return policy_value(sums, method="direct_method", alpha=alpha, diagnostics=more | rows.notes)
