"""Standard errors that planned experiments would have, from the spread that past observations show.

Each function gives the variance of the later estimator (difference in means, cluster means, block regression) under
the assignment that is planned; arms are taken to be alike in spread. Sources: Deng, Knoblich and Lu (2018) for ratios
of sums; Bojinov, Simchi-Levi and Zhao (2023) for switchbacks, whose error comes from the assignment of blocks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from estimators.cells import Cells
from estimators.fixed_effects import sweep
from estimators.inference import EstimationError, satterthwaite
from estimators.ols import Vector


@dataclass(frozen=True, slots=True)
class PlannedError:
    """What a planned estimate would be sure of.

    Attributes:
        std_error: In the outcome's unit.
        df: Degrees of freedom.
        n_control, n_treatment: Randomized units by arm; pairs where arms are drawn within pairs.
        parameters: Of the regression, where it is one.
    """

    std_error: float
    df: float
    n_control: float
    n_treatment: float
    parameters: float = 0.0

    def with_units(self, n: float) -> PlannedError:
        """The error with another number of randomized units, the same share of them treated."""
        now = self.n_control + self.n_treatment
        if n < self.parameters + 2.0:
            raise EstimationError(f"{n:.0f} randomized units would be too few for a comparison within the calendar")
        error = self.std_error * math.sqrt((now - self.parameters + 1.0) / (n - self.parameters + 1.0))
        ratio = n / now
        return PlannedError(
            error, max(1.0, self.df * ratio), self.n_control * ratio, self.n_treatment * ratio, self.parameters
        )


def two_arms(variance: float, n_control: float, n_treatment: float) -> PlannedError:
    """Difference of two independent means, Welch's degrees of freedom.

    Args:
        variance: Of one unit's contribution to its arm's value (``Moments.value_variance * n``).
        n_control, n_treatment: Units by arm, whole or expected.

    Raises:
        EstimationError: Fewer than two units in an arm, or no variation.
    """
    if min(n_control, n_treatment) < 2.0:
        raise EstimationError("an arm would have fewer than two randomized units")
    parts = (variance / n_treatment, variance / n_control)
    df = satterthwaite(parts, (n_treatment - 1.0, n_control - 1.0))
    return PlannedError(math.sqrt(sum(parts)), df, n_control, n_treatment)


def pairs(values: Vector, pair: NDArray[np.intp]) -> PlannedError:
    """Difference within matched pairs of clusters, a coin deciding which of a pair is treated.

    Args:
        values: ``(n,)`` outcomes of the clusters.
        pair: ``(n,)`` codes; every code stands twice.

    Returns:
        The root of ``sum(d**2) / m**2`` over the ``m`` pairs' differences ``d``: that is the variance over the coins
        where nobody is treated.

    Raises:
        EstimationError: Fewer than two pairs, or pairs that do not differ.
    """
    order = np.argsort(pair, kind="stable")
    differences = values[order][::2] - values[order][1::2]
    m = len(differences)
    if m < 2 or not np.array_equal(pair[order][::2], pair[order][1::2]):
        raise EstimationError("two whole pairs are needed")
    error = math.sqrt(float(differences @ differences)) / m
    if not error > 0.0:
        raise EstimationError("the clusters of every pair are alike, so nothing says how sure the estimate is")
    return PlannedError(error, m - 1.0, m, m)


def blocks(
    cells: Cells, *, share: float, planned: float, clustered_by: str = "cell", weights: str = "rows"
) -> PlannedError:
    """Block regression of a switchback whose arms are drawn anew for every randomized unit.

    With ``e`` the residual of a cell's outcome on cluster, hour and weekday and ``w`` its weight, the estimate's
    variance over the assignment is ``sum_g (sum_{i in g} w_i e_i)**2 / (share * (1 - share) * (sum w)**2)``, ``g``
    running over the randomized units: it asks nothing of the outcome's course over time. It is scaled from the past
    number of randomized units to the planned one, with the parameters of either regression taken off.

    Args:
        cells: Past cells, without treatment or with its effect taken out; ``arm`` is not used.
        share: Treatment's share of the randomized units, in (0, 1).
        planned: Randomized units of the planned experiment, both arms.
        clustered_by: The randomized unit: ``cell`` where clusters switch apart, ``block`` where all switch together.
        weights: ``rows``: cells weigh their denominator; ``units``: alike.

    Past cells should span as long as the plan does: outcomes that drift are taken up by the calendar of a short window
    more than by that of a long one.

    Returns:
        The error, its degrees of freedom ``(sum W)**2 / sum(W**2) / (1 + 4 h - 2 h**2)`` over the randomized units'
        weights ``W``. ``h`` is the share of parameters: an arm's residual is near ``(1 - h)`` times the coin and for
        the rest normal, and the divisor is its kurtosis, as in Satterthwaite's formula of CR2.

    Raises:
        EstimationError: Too few blocks, past or planned, for the regression; or no variation.
    """
    cells = cells.take(cells.den > 0.0)
    if not len(cells.den):
        raise EstimationError("no block has a value of it")
    weight = cells.den if weights == "rows" else np.ones(len(cells.den))
    group = np.arange(len(cells.den)) if clustered_by == "cell" else np.unique(cells.block, return_inverse=True)[1]
    n_past = int(group.max()) + 1
    effects, parameters = _effects(cells, planned)
    past_effects, past_parameters = _effects(cells, n_past)
    if clustered_by == "block":  # clusters differ within blocks, and cost none of the blocks' freedom
        apart = len(np.unique(cells.cluster)) - 1
        parameters, past_parameters = parameters - apart, past_parameters - apart
    if n_past < past_parameters + 2:
        raise EstimationError(f"the log has {n_past} blocks to judge by, too few for their calendar")
    if planned < parameters + 2:
        raise EstimationError(f"{planned:.0f} randomized units would be too few for a comparison within the calendar")
    y = cells.num / cells.den
    used = past_effects if past_parameters < parameters else effects
    residual = sweep((y - np.average(y, weights=weight))[:, None], used, weight)[:, 0]
    scores = np.bincount(group, weight * residual)
    total = np.bincount(group, weight)
    k = min(parameters, past_parameters)
    spread = float(scores @ scores) / float(total.sum()) ** 2 * n_past / (n_past - k) * n_past
    if not spread > 0.0:
        raise EstimationError("the outcome does not vary between blocks, so nothing says how sure an estimate would be")
    even = float(total.sum()) ** 2 / float(total @ total) / n_past
    return stated_blocks(spread, share=share, planned=planned, parameters=parameters, even=even)


def stated_blocks(
    variance: float, *, share: float, planned: float, parameters: float, even: float = 1.0
) -> PlannedError:
    """The error of a block regression whose randomized units' residuals have this variance.

    Args:
        variance: Of a randomized unit's outcome around cluster and calendar.
        share, planned: As in :func:`blocks`.
        parameters: Of the regression.
        even: ``(sum W)**2 / sum(W**2)`` over the units' weights, as a share of their number.

    Raises:
        EstimationError: Fewer randomized units than the regression needs.
    """
    if planned < parameters + 2:
        raise EstimationError(f"{planned:.0f} randomized units would be too few for a comparison within the calendar")
    error = math.sqrt(variance / (share * (1.0 - share)) / (planned - parameters + 1.0))
    h = parameters / planned
    df = max(1.0, even * planned / (1.0 + 4.0 * h - 2.0 * h * h))
    return PlannedError(error, df, (1.0 - share) * planned, share * planned, parameters)


def _effects(cells: Cells, n_randomized: float) -> tuple[list[NDArray[np.intp]], int]:
    """Cluster and the calendar that so many randomized units can carry in the block regression, and its parameters."""
    factors = [cells.hour, cells.weekday]
    clusters = len(np.unique(cells.cluster))
    for i in (1, 0):
        parameters = clusters + 1 + sum(len(np.unique(f)) - 1 for f in factors)
        if n_randomized < 2 * parameters:
            factors[i] = np.zeros_like(factors[i])
    codes = [np.unique(f, return_inverse=True)[1] for f in (cells.cluster, *factors)]
    return codes, clusters + 1 + sum(len(np.unique(f)) - 1 for f in factors)
