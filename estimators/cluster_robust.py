"""Cluster-robust inference for cluster-randomized designs, and the wild cluster bootstrap for few clusters.

Estimand: the effect on the average row (``weights="rows"``) or cluster (``"units"``); with strata or pairs, the
weighted average of theirs that least squares takes. Sources: Bell and McCaffrey (2002) and Pustejovsky and Tipton
(2018) for CR2; Cameron, Gelbach and Miller (2008) and Roodman, Nielsen, MacKinnon and Webb (2019), *Fast and wild*,
for the bootstrap and its interval; Webb (2023), *Reworking wild bootstrap-based inference for clustered errors*.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from estimators.cluster_means import Clusters, Codes
from estimators.cluster_regression import ClusterRegression, centre, regression, remainder
from estimators.estimate import Estimate
from estimators.inference import EstimationError, finish
from estimators.ols import Matrix, Vector

Draws = NDArray[np.int8]

VARIANCES = ("CR2", "CR1", "CR3", "wild")

_TIE = 1e-9  # statistics that differ by rounding are equal, and count as extreme
_FEW = 12  # below it two-point weights give too few distinct statistics
_WEBB = np.sqrt([0.5, 1.0, 1.5])
_CHUNK = 1 << 19  # numbers held at once for a batch of draws


def cluster_robust(
    clusters: Clusters,
    *,
    alpha: float = 0.05,
    variance: str = "CR2",
    weights: str = "rows",
    draws: int = 9999,
    seed: int = 0,
) -> Estimate:
    """Least squares of rows (or cluster means) on the arm and on strata or pairs, errors clustered as randomized.

    Args:
        clusters: One entry per cluster; with ``pairs`` the pair is the independent group.
        alpha: Level; intervals are at ``1 - alpha``.
        variance: ``CR2``: unbiased under independent rows of equal variance, Bell and McCaffrey's degrees of freedom.
            ``CR1``: the factor ``G/(G-1) (N-1)/(N-K)``, ``G - 1`` degrees of freedom. ``CR3``: the jackknife's
            ``(I - H)^-1``, ``G - 1``. ``wild``: p-value and interval of the wild cluster bootstrap-t with the null
            imposed, interval by inversion; the standard error and degrees of freedom shown are CR1's.
        weights: ``rows``: clusters weigh their denominators; ``units``: alike.
        draws: Of the bootstrap; all sign patterns are taken instead where there are no more of them. Rademacher's
            weights, Webb's six points below 12 groups.
        seed: Of the bootstrap.

    Returns:
        The estimate in the outcome's unit; values by arm are means over strata or pairs with the
        effect's weights, ``n_control`` and ``n_treatment``
        clusters. The relative effect's interval is that of the log ratio; under ``wild`` it reaches as many standard
        errors as the effect's does. ``diagnostics``: ``variance``, ``n_clusters``, ``empty_clusters``,
        ``broken_pairs`` and ``n_pairs``, or ``n_strata`` and ``single_arm_strata``; ``wild`` adds ``draws``, ``exact``
        (all patterns taken), ``points`` and ``seed``.

    Raises:
        EstimationError: Fewer than two clusters in an arm, one cluster that alone decides the estimate, no variation
            between clusters, or under ``wild`` so few groups that no interval exists at ``alpha``.
    """
    if variance not in VARIANCES:
        raise ValueError(f"variance must be one of {VARIANCES}")
    model = regression(clusters, weights)
    if variance != "wild":
        return summary(model, "cluster_robust", variance, alpha)
    if draws < 1:
        raise ValueError("draws must be at least 1")
    estimate = summary(model, "cluster_robust", "CR1", alpha)
    n = len(model.w)
    points = np.array([-1.0, 1.0]) if n >= _FEW else np.r_[-_WEBB[::-1], _WEBB]
    exact = len(points) ** n <= draws
    rng = np.random.default_rng(seed)
    patterns = all_patterns(len(points), n) if exact else rng.integers(0, len(points), (draws, n), dtype=np.int8)
    residuals, slope = model.residuals, model.w * model.x

    def outcome(batch: Draws) -> tuple[Matrix, Matrix, Matrix]:
        v = points[batch]
        return np.broadcast_to(model.x, v.shape), v * residuals, v * slope

    replicates = replicate(model, patterns, outcome, leverage=False, exact=exact)
    notes = {"draws": len(patterns), "exact": exact, "points": len(points), "seed": seed}
    return resampled(model, estimate, "CR1", replicates, alpha, {"variance": "wild", **notes})


def summary(model: ClusterRegression, method: str, variance: str, alpha: float) -> Estimate:
    """The regression's effect with the t test of one variance estimator; errors as in ``cluster_robust``."""
    std_error, df = model.error(variance)
    control, treatment = model.values
    # Rounding leaves a trace of the outcome's size; a spread below it is none.
    if std_error <= 1e-13 * max(abs(control), abs(treatment)):
        raise EstimationError("the outcome does not vary between clusters, so nothing says how sure the estimate is")
    return finish(
        method,
        estimate=model.effect,
        std_error=std_error,
        df=df,
        alpha=alpha,
        control_value=control,
        treatment_value=treatment,
        n_control=int((model.data.clusters.arm == 0).sum()),
        n_treatment=int((model.data.clusters.arm == 1).sum()),
        relative=model.relative(variance, alpha),
        diagnostics={"variance": variance, **model.diagnostics()},
    )


@dataclass(frozen=True, slots=True)
class Replicates:
    """Studentized statistics of resampled outcomes under the null ``effect = estimate + delta``, for every ``delta``.

    The resampled effect ``effect - delta * effect_slope`` is linear in the null and its variance ``q - 2 delta q_cross
    + delta^2 q_slope`` a quadratic, so that inverting the test costs no further resampling.

    Attributes:
        effect, effect_slope, q, q_cross, q_slope: ``(B,)``.
        weight: ``(B,)`` probabilities of the replicates; None: alike.
        exact: All that can occur, the observed one among them; otherwise the observed one is added to the draws.
    """

    effect: Vector
    effect_slope: Vector
    q: Vector
    q_cross: Vector
    q_slope: Vector
    weight: Vector | None
    exact: bool

    def p_value(self, delta: float, std_error: float) -> float:
        """Share of replicates at least as far from the null as the observed estimate is; 1 at ``delta = 0``."""
        q = np.maximum(self.q - 2.0 * delta * self.q_cross + delta * delta * self.q_slope, 0.0)
        # Both sides are squared and cleared of denominators: a replicate without spread counts as extreme.
        extreme = ((self.effect - delta * self.effect_slope) * std_error) ** 2 >= (1.0 - _TIE) * delta * delta * q
        if self.weight is not None:
            return float(self.weight[extreme].sum() / self.weight.sum())
        count = int(np.count_nonzero(extreme))
        return count / len(extreme) if self.exact else (1 + count) / (1 + len(extreme))

    def interval(self, estimate: float, std_error: float, alpha: float, units: str = "clusters") -> tuple[float, float]:
        """Effects that the test does not reject at ``alpha``; it agrees with the p-value of no effect.

        ``units``: what was randomized, for the message.

        Raises:
            EstimationError: Where no effect, however far, is rejected.
        """
        low, high = (self._bound(side, estimate, std_error, alpha, units) for side in (-1.0, 1.0))
        return estimate + low, estimate + high

    def _bound(self, side: float, estimate: float, std_error: float, alpha: float, units: str) -> float:
        inside, outside = 0.0, side * std_error
        zero = -estimate
        if zero * side > 0.0:
            rejected = self.p_value(zero, std_error) <= alpha
            inside, outside = (0.0, zero) if rejected else (zero, zero + side * std_error)
        for _ in range(40):
            if self.p_value(outside, std_error) <= alpha:
                break
            inside, outside = outside, 2.0 * outside
        else:
            more_draws_help = not self.exact and 1.0 / (1 + len(self.q)) > alpha
            raise EstimationError(
                f"too few {'draws' if more_draws_help else units} for an interval at level {1.0 - alpha:g}: "
                f"the smallest p-value that resampling can reach is {self.p_value(outside, std_error):.2g}"
            )
        while abs(outside - inside) > 1e-9 * std_error + 1e-15 * abs(outside):
            middle = 0.5 * (inside + outside)
            if self.p_value(middle, std_error) <= alpha:
                outside = middle
            else:
                inside = middle
        return outside


def replicate(
    model: ClusterRegression,
    draws: Draws,
    outcome: Callable[[Draws], tuple[Matrix, Matrix, Matrix]],
    *,
    leverage: bool,
    exact: bool,
    weight: Vector | None = None,
) -> Replicates:
    """Statistics of all draws, a batch at a time.

    Args:
        model: The observed regression.
        draws: ``(B, n)``.
        outcome: Gives a batch's centred arms, sums at the estimate, and how the sums fall as the null rises.
        leverage: Studentize by CR2 (else by CR1, its factor included).
        exact, weight: As in ``Replicates``.

    Draws whose statistic does not exist, because one cluster alone would decide the effect, are left out.
    """
    size = max(1, _CHUNK // len(model.w))
    factor = 1.0
    if not leverage:
        n = len(model.w)
        factor = n / (n - 1) * (model.n_rows - 1) / (model.n_rows - model.n_parameters)
    parts: list[Matrix] = []
    for first in range(0, len(draws), size):
        x, s, slope = outcome(draws[first : first + size])
        parts.append(_statistics(model.w, x, s, slope, model.starts, leverage, factor))
    table = np.concatenate(parts, axis=1)
    some = np.isfinite(table).all(axis=0)
    if not some.any():
        raise EstimationError("no assignment that could be drawn allows a comparison of the arms")
    effect, effect_slope, q, q_cross, q_slope = table[:, some]
    return Replicates(effect, effect_slope, q, q_cross, q_slope, None if weight is None else weight[some], exact)


def resampled(
    model: ClusterRegression,
    estimate: Estimate,
    variance: str,
    replicates: Replicates,
    alpha: float,
    notes: dict[str, object],
) -> Estimate:
    """The estimate with p-value and intervals of the replicates in place of Student's."""
    point, std_error = estimate.estimate, estimate.std_error
    low, high = replicates.interval(point, std_error, alpha)
    relative = model.relative(variance, alpha, ((point - low) / std_error, (high - point) / std_error))
    return replace(
        estimate,
        p_value=replicates.p_value(-point, std_error),
        ci_low=low,
        ci_high=high,
        relative_ci_low=relative.low,
        relative_ci_high=relative.high,
        diagnostics={**estimate.diagnostics, **notes},
    )


def _statistics(
    w: Vector, x: Matrix, s: Matrix, slope: Matrix, starts: Codes | None, leverage: bool, factor: float
) -> Matrix:
    """``(5, B)`` fields of ``Replicates``; not a number where one cluster alone would decide the effect."""
    with np.errstate(divide="ignore", invalid="ignore"):
        curvature = (w * x**2).sum(axis=-1)
        scale = factor * (x / curvature[:, None]) ** 2
        if leverage:
            left = remainder(w, x, starts)
            scale = np.where(x == 0.0, 0.0, scale / np.where(left > 0.0, left, np.nan))
        effects, residuals = [], []
        for sums in (s, slope):
            effect = (x * sums).sum(axis=-1) / curvature
            effects.append(effect)
            residuals.append(centre(sums, w, starts) - effect[:, None] * w * x)
        a, b = residuals
        forms = [(scale * y).sum(axis=-1) for y in (a * a, a * b, b * b)]
    return np.vstack([*effects, *forms])


def all_patterns(n_points: int, n: int) -> Draws:
    """``(n_points ** n, n)`` all rows of numbers below ``n_points``."""
    return np.array(list(itertools.product(range(n_points), repeat=n)), dtype=np.int8)
