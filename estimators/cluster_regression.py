"""Row-level least squares on the arm, with indicators of strata or pairs, held as one entry per cluster.

No covariate varies within a cluster, so the regression of rows is a regression of cluster sums: with ``x`` the arm
centred within strata, ``w`` the denominators and ``s`` the numerators, the effect is ``sum(x s) / sum(w x^2)``, a
cluster's score is ``x`` times the sum of its residuals, and its block of the hat matrix has the one eigenvalue
``h = w / W_stratum + w x^2 / sum(w x^2)``. Hence CR1, CR2 and CR3 in O(n), with any number of strata and no matrix.

Matched pairs are the independent groups, as the two clusters of a pair are never drawn apart (de Chaisemartin and
Ramirez-Cuellar 2024, *At what level should one cluster standard errors in paired and small-strata experiments?*). The
pairs' indicators fit all but each pair's difference ``d``, so that the regression is that of ``d`` on a constant with
weights ``w_1 w_0 / (w_1 + w_0)``.

Sources: Bell and McCaffrey (2002); Pustejovsky and Tipton (2018); MacKinnon, Nielsen and Webb (2023), *Cluster-robust
inference: a guide to empirical practice*.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from estimators.cluster_means import NO_SPREAD, Clusters, Codes, Usable, pair_positions, sums, usable
from estimators.inference import EstimationError, Relative, relative_from_log, relative_reason, t_interval
from estimators.ols import Matrix, Vector

_NULL = 1e-9  # below it 1 - leverage is zero: the cluster alone fits that direction


@dataclass(frozen=True)
class ClusterRegression:
    """The regression of rows, one entry per independent group (cluster or pair).

    Attributes:
        data: The clusters that enter.
        order: Their positions in ``data.clusters`` in the order of the entries; empty for pairs.
        w, x: ``(n,)`` weights and centred arm (1 for pairs).
        control, treatment: ``(n,)`` the arms' parts of the sums, less ``level``: they add up to ``s``. Of pairs the
            control's part is negative, as ``s`` is that of the difference.
        starts: First entry of every stratum; None for pairs, which have no level of their own.
        level: The outcome's mean over all rows.
        n_rows, n_parameters: As CR1's factor counts them; indicators of pairs lie within their group and do not count.
    """

    data: Usable
    order: Codes
    w: Vector
    x: Vector
    control: Vector
    treatment: Vector
    starts: Codes | None
    level: float
    n_rows: float
    n_parameters: int

    @cached_property
    def s(self) -> Vector:
        """``(n,)`` centred sums of the groups."""
        return self.control + self.treatment

    @cached_property
    def curvature(self) -> float:
        """``sum(w x^2)``."""
        return float(self.w @ self.x**2)

    @cached_property
    def effect(self) -> float:
        """The coefficient of the arm."""
        return float(self.x @ self.s) / self.curvature

    @cached_property
    def residuals(self) -> Vector:
        """``(n,)`` sums of residuals of the groups."""
        return centre(self.s, self.w, self.starts) - self.effect * self.w * self.x

    @cached_property
    def remainder(self) -> Vector:
        """``(n,)`` one minus leverage, 0 where the group alone fits a direction."""
        return remainder(self.w, self.x, self.starts)

    @property
    def values(self) -> tuple[float, float]:
        """Control's and treatment's mean over strata or pairs, weighed as the effect weighs them."""
        control = self.level - float(self.x @ self.control) / self.curvature
        return control, self.level + float(self.x @ self.treatment) / self.curvature

    def error(self, variance: str) -> tuple[float, float]:
        """Standard error and degrees of freedom of the effect.

        ``CR1``: the factor ``G / (G - 1) (N - 1) / (N - K)`` and ``G - 1`` degrees of freedom. ``CR2``: Bell and
        McCaffrey's. ``CR3``: the jackknife's ``(I - H)^-1`` without a factor, and ``G - 1``.

        Raises:
            EstimationError: Where one group alone decides the effect, or no degrees of freedom are left.
        """
        loading = self.x / self.curvature
        n = len(self.w)
        free = self.remainder > 0.0
        if (np.abs(self.x[~free]) > _NULL).any():
            raise EstimationError("one cluster alone decides the estimate, so its error cannot be seen")
        if variance == "CR1":
            if not self.n_rows > self.n_parameters:
                raise EstimationError(
                    f"{self.n_rows:g} rows are too few for a regression with {self.n_parameters} parameters"
                )
            factor = n / (n - 1) * (self.n_rows - 1) / (self.n_rows - self.n_parameters)
            return math.sqrt(factor * float(((loading * self.residuals) ** 2).sum())), n - 1.0
        power = -0.5 if variance == "CR2" else -1.0
        adjusted = loading * np.where(free, np.where(free, self.remainder, 1.0) ** power, 0.0)
        std_error = math.sqrt(float(((adjusted * self.residuals) ** 2).sum()))
        return std_error, self._satterthwaite(adjusted) if variance == "CR2" else n - 1.0

    def relative(self, variance: str, alpha: float, quantiles: tuple[float, float] | None = None) -> Relative:
        """Relative effect with the interval of the log ratio of the values (of the ratio, where there is no log).

        The log ratio's error is that of the same regression on ``y / T`` in treatment and ``y / C`` in control, which
        takes effects in proportion to the level of a stratum or pair for what they are.

        ``quantiles``: how many standard errors the interval of the effect reaches down and up, where a resampling
        method found it; None: Student's t.
        """
        control, treatment = self.values
        if reason := relative_reason(control):
            return Relative(reason=reason)
        ratio = treatment / control
        # d(T / C) = dT / C - T dC / C^2, and d log(T / C) = dT / T - dC / C.
        units = (1.0 / treatment, 1.0 / control) if treatment > 0.0 else (1.0 / control, ratio / control)
        scaled = replace(self, treatment=units[0] * self.treatment, control=units[1] * self.control)
        std_error, df = scaled.error(variance)
        # Rounding leaves a trace of the ratio's size; a spread below it is none.
        if std_error <= 1e-13 * max(1.0, abs(ratio)):
            return Relative(ratio - 1.0, reason=NO_SPREAD)
        if quantiles is None:
            if treatment > 0.0:
                return relative_from_log(control, treatment, std_error, df, alpha)
            return Relative(ratio - 1.0, *t_interval(ratio - 1.0, std_error, df, alpha))
        down, up = (q * std_error for q in quantiles)
        if treatment > 0.0:
            top = math.log(ratio) + up
            return Relative(ratio - 1.0, math.expm1(math.log(ratio) - down), math.expm1(top) if top < 700.0 else None)
        return Relative(ratio - 1.0, ratio - 1.0 - down, ratio - 1.0 + up)

    def _satterthwaite(self, adjusted: Vector) -> float:
        """``tr(G)^2 / tr(G^2)`` with ``G = u u' * (I - H)`` elementwise, ``u^2 = w adjusted^2``."""
        w, x, curvature = self.w, self.x, self.curvature
        u2 = w * adjusted**2
        trace = float((u2 * self.remainder).sum())
        square = float((u2**2 * (2.0 * self.remainder - 1.0)).sum()) + float((u2 * w) @ x**2 / curvature) ** 2
        if self.starts is not None:
            total = np.add.reduceat(w, self.starts)
            total = np.where(total > 0.0, total, 1.0)
            square += float(((np.add.reduceat(u2 * w, self.starts) / total) ** 2).sum())
            square += 2.0 * float((np.add.reduceat(u2 * w * x, self.starts) ** 2 / total).sum()) / curvature
        if not (trace > 1e-12 * float(u2.sum()) and square > 0.0):
            raise EstimationError("no degrees of freedom are left for the standard error: too few clusters")
        return trace * trace / square

    def diagnostics(self) -> dict[str, Any]:
        """What entered the model and what did not."""
        clusters = self.data.clusters
        notes = dict(self.data.diagnostics)
        if clusters.pairs is not None:
            notes["n_pairs"] = len(self.w)
        elif clusters.strata is not None:
            names, codes = np.unique(clusters.strata, return_inverse=True)
            mean_arm = np.bincount(codes, weights=clusters.arm) / np.bincount(codes)
            notes["n_strata"] = len(names)
            notes["single_arm_strata"] = [str(k) for k in names[(mean_arm == 0.0) | (mean_arm == 1.0)]]
        return notes


def regression(clusters: Clusters, weights: str) -> ClusterRegression:
    """Lays out the regression of the clusters' rows (``rows``) or of their means (``units``).

    Raises:
        EstimationError: As ``usable``; no stratum holds both arms, or a pair has no positive denominator.
    """
    data = usable(clusters, weights)
    chosen = data.clusters
    num, den = sums(chosen, weights)
    total = float(den.sum())
    level = float(num.sum()) / total
    centred = num - level * den
    counts = chosen.den if chosen.rows is None else chosen.rows
    n_rows = float(len(den)) if weights == "units" else float(counts.sum())
    if chosen.pairs is not None:
        c, t = pair_positions(chosen)
        both = den[c] + den[t]
        if not (both > 0.0).all():
            raise EstimationError(f"pair {chosen.pairs[c[int(np.argmin(both))]]} has no positive denominator")
        w = den[c] * den[t] / both
        parts = (-den[t] * centred[c] / both, den[c] * centred[t] / both)
        if len(w) < 2 or not w.sum() > 0.0:
            raise EstimationError("fewer than two whole pairs are left; two are needed")
        return ClusterRegression(data, np.empty(0, np.intp), w, np.ones(len(w)), *parts, None, level, n_rows, 2)
    codes = np.zeros(len(den), np.intp)
    if chosen.strata is not None:
        codes = np.unique(chosen.strata, return_inverse=True)[1]
    order = np.argsort(codes, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(codes[order]) > 0])
    w = den[order]
    arm = chosen.arm[order].astype(np.float64)
    x = centred_arm(arm, w, starts)
    if not float(w @ x**2) > 1e-12 * total:
        raise EstimationError("no stratum holds both arms, so no comparison within strata is left")
    parts = ((1.0 - arm) * centred[order], arm * centred[order])
    return ClusterRegression(data, order, w, x, *parts, starts, level, n_rows, len(starts) + 1)


def centre(s: Matrix, w: Vector, starts: Codes | None) -> Matrix:
    """Sums ``(..., n)`` less their stratum's mean times the weight; as they are where there is no stratum."""
    if starts is None:
        return s
    return s - w * _stratum_means(s, w, starts)


def centred_arm(arm: Matrix, w: Vector, starts: Codes) -> Matrix:
    """Arms ``(..., n)`` less their stratum's weighted mean; exactly 0 where a stratum holds one arm."""
    x = arm - _stratum_means(arm * w, w, starts)
    return np.asarray(np.where(np.abs(x) > 1e-14, x, 0.0), dtype=np.float64)


def remainder(w: Vector, x: Matrix, starts: Codes | None) -> Matrix:
    """``(..., n)`` one minus the groups' leverage, 0 where nothing is left of it."""
    h = w * x**2 / (w * x**2).sum(axis=-1, keepdims=True)
    if starts is not None:
        total = np.add.reduceat(w, starts)
        h = h + w / np.repeat(np.where(total > 0.0, total, 1.0), _sizes(starts, len(w)))
    return np.asarray(np.where(1.0 - h > _NULL, 1.0 - h, 0.0), dtype=np.float64)


def _stratum_means(s: Matrix, w: Vector, starts: Codes) -> NDArray[np.float64]:
    total = np.add.reduceat(w, starts)
    means = np.add.reduceat(s, starts, axis=-1) / np.where(total > 0.0, total, 1.0)
    return np.asarray(np.repeat(means, _sizes(starts, len(w)), axis=-1), dtype=np.float64)


def _sizes(starts: Codes, n: int) -> Codes:
    return np.asarray(np.diff(np.r_[starts, n]), dtype=np.intp)
