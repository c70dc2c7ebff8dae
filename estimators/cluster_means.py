"""Cluster-randomized designs from one entry per cluster: the input of their estimators, t on cluster means, the ICC.

Estimand of ``cluster_means``: the effect on the average cluster (``weights="units"``) or on the average row
(``"rows"``). It needs no intraclass correlation: clusters are the observations. Sources: Hayes and Moulton (2017),
*Cluster Randomised Trials*, ch. 10; Welch (1947); Deng, Knoblich and Lu (2018) for ratios of sums; Imai, King and Nall
(2009), *The essential role of pair matching in cluster-randomized experiments*.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from estimators.difference_in_means import difference_in_means, relative_effect
from estimators.estimate import Estimate
from estimators.inference import (
    EstimationError,
    Relative,
    finish,
    relative_from_log,
    relative_reason,
    satterthwaite,
    t_interval,
)
from estimators.moments import Moments
from estimators.ols import Vector

Codes = NDArray[np.intp]

WEIGHTS = ("units", "rows")
NO_SPREAD = "treatment's value is zero throughout, so the ratio shows no spread"


@dataclass(frozen=True, slots=True, eq=False)
class Clusters:
    """One entry per randomized cluster.

    Attributes:
        num: ``(n,)`` sums of the outcome.
        den: ``(n,)`` row counts, or sums of a ratio's denominator; not negative.
        arm: ``(n,)`` 0 control, 1 treatment.
        strata: ``(n,)`` labels of the strata that the arms were drawn in; None: no strata.
        pairs: ``(n,)`` labels of matched pairs, one cluster of each in either arm; None: no pairs. Pairs lie within
            strata, so that strata add nothing where both are given.
        labels: ``(n,)`` names of the clusters, for messages; empty: their positions.
        rows: ``(n,)`` row counts where ``den`` holds something else; None: ``den``.

    Raises:
        EstimationError: Arrays of different lengths, values that are not finite, negative denominators or row counts,
            arms other than 0 and 1.
    """

    num: Vector
    den: Vector
    arm: Codes
    strata: NDArray[Any] | None = None
    pairs: NDArray[Any] | None = None
    labels: tuple[str, ...] = ()
    rows: Vector | None = None

    def __post_init__(self) -> None:
        arm = np.asarray(self.arm)
        if not np.isin(arm, (0, 1)).all():
            raise EstimationError("arms of clusters must be 0 (control) or 1 (treatment)")
        object.__setattr__(self, "arm", arm.astype(np.intp))
        for name in ("num", "den", "rows"):
            if (values := getattr(self, name)) is not None:
                object.__setattr__(self, name, np.asarray(values, dtype=np.float64))
        for name in ("strata", "pairs"):
            if (values := getattr(self, name)) is not None:
                keys = np.asarray(values)
                object.__setattr__(self, name, keys.astype(str) if keys.dtype == object else keys)
        n = len(self.num)
        labels = tuple(map(str, self.labels)) or tuple(map(str, range(n)))
        object.__setattr__(self, "labels", labels)
        arrays = [a for a in (self.num, self.den, self.arm, self.strata, self.pairs, self.rows) if a is not None]
        if any(a.shape != (n,) for a in arrays) or len(labels) != n:
            raise EstimationError("clusters must have one entry per cluster in every array")
        numbers = [self.num, self.den] + ([] if self.rows is None else [self.rows])
        if not all(np.isfinite(a).all() for a in numbers):
            raise EstimationError("the clusters hold values that are not finite")
        if any((a < 0.0).any() for a in numbers[1:]):
            raise EstimationError("denominators and row counts of clusters must not be negative")

    def take(self, index: NDArray[Any]) -> Clusters:
        """The clusters that ``index`` (a mask or positions) chooses."""
        positions = np.arange(len(self.num))[index]
        optional = {k: None if (v := getattr(self, k)) is None else v[positions] for k in ("strata", "pairs", "rows")}
        labels = tuple(self.labels[i] for i in positions)
        return replace(
            self, num=self.num[positions], den=self.den[positions], arm=self.arm[positions], labels=labels, **optional
        )


@dataclass(frozen=True, slots=True)
class Usable:
    """The clusters that carry the estimate.

    Attributes:
        clusters: Those with rows; where there are pairs, those whose pair is whole.
        kept: Their positions in what was given.
        diagnostics: ``n_clusters``, and the names of ``empty_clusters`` and ``broken_pairs`` left out.
    """

    clusters: Clusters
    kept: Codes
    diagnostics: dict[str, Any]


def usable(clusters: Clusters, weights: str) -> Usable:
    """Leaves out clusters without rows and pairs that lost a cluster; checks what is left.

    Raises:
        EstimationError: Fewer than two clusters in an arm or two pairs, a pair with two clusters in one arm, no
            positive denominator in an arm, or, for ``weights="units"``, in a cluster.
    """
    if weights not in WEIGHTS:
        raise ValueError(f"weights must be one of {WEIGHTS}")
    empty = (clusters.den == 0.0) & (clusters.num == 0.0)
    kept = np.flatnonzero(~empty)
    notes: dict[str, Any] = {"empty_clusters": [clusters.labels[i] for i in np.flatnonzero(empty)]}
    if clusters.pairs is not None:
        _check_pairs(clusters.pairs, clusters.arm)
        names, codes, sizes = np.unique(clusters.pairs[kept], return_inverse=True, return_counts=True)
        notes["broken_pairs"] = [str(name) for name in names[sizes < 2]]
        kept = kept[sizes[codes] == 2]
    chosen = clusters.take(kept)
    for arm, name in ((0, "control"), (1, "treatment")):
        mine = chosen.arm == arm
        if (n := int(mine.sum())) < 2:
            raise EstimationError(f"{name} has {n} cluster{'s' * (n != 1)}; an error needs at least two")
        if not chosen.den[mine].sum() > 0.0:
            raise EstimationError("the denominator does not sum to a positive number in one arm")
    if weights == "units" and (chosen.den == 0.0).any():
        label = chosen.labels[int(np.argmax(chosen.den == 0.0))]
        raise EstimationError(
            f"cluster {label} has a numerator but no positive denominator, so it has no mean; weigh rows instead"
        )
    return Usable(chosen, kept, {"n_clusters": len(kept), **notes})


def sums(clusters: Clusters, weights: str) -> tuple[Vector, Vector]:
    """Numerators and denominators as ``weights`` has them: the clusters' own, or their means over 1."""
    if weights == "units":
        return clusters.num / clusters.den, np.ones(len(clusters.num))
    return clusters.num, clusters.den


def pair_positions(clusters: Clusters) -> tuple[Codes, Codes]:
    """Positions of every pair's control and treatment cluster, in the order of the pairs' labels."""
    assert clusters.pairs is not None
    order = np.lexsort((clusters.arm, clusters.pairs))
    return order[0::2], order[1::2]


def cluster_means(clusters: Clusters, *, alpha: float = 0.05, weights: str = "units") -> Estimate:
    """Treatment's mean minus control's, clusters being the observations.

    Without strata and pairs: Welch's test on cluster means (``units``), or the ratio of sums with the delta method
    over clusters (``rows``). With pairs: the paired t test, on the pairs' differences of linearized values where rows
    are weighed. With strata: the strata's differences averaged over all clusters (``units``) or all rows (``rows``),
    Satterthwaite's degrees of freedom over all their variances.

    Args:
        clusters: One entry per cluster.
        alpha: Level; intervals are at ``1 - alpha``.
        weights: ``units``: clusters count alike; ``rows``: by their denominators.

    Returns:
        The estimate in the outcome's unit, ``n_control`` and ``n_treatment`` clusters, the relative effect as in
        ``difference_in_means``. ``diagnostics``: ``n_clusters``, ``empty_clusters``, ``broken_pairs``, and ``n_pairs``
        or ``n_strata``.

    Raises:
        EstimationError: Fewer than two clusters in an arm (of a stratum), no variation between clusters, or no
            positive denominator.
    """
    data = usable(clusters, weights)
    num, den = sums(data.clusters, weights)
    if data.clusters.pairs is not None:
        return _paired(data, num, den, alpha)
    if data.clusters.strata is not None:
        return _stratified(data, num, den, alpha)
    control, treatment = (_moments(num, den, data.clusters.arm == a, weights) for a in (0, 1))
    estimate = difference_in_means(control, treatment, alpha=alpha)
    return replace(estimate, method="cluster_means", diagnostics=data.diagnostics)


def intraclass_correlation(clusters: Clusters, within: ArrayLike) -> float:
    """ANOVA estimate of the intraclass correlation of rows, arms taken out; below zero where clusters are too alike.

    Donner and Klar (2000), *Design and Analysis of Cluster Randomization Trials*, eq. 6.1: ``(MSB - MSW) / (MSB +
    (m0 - 1) MSW)``.

    Args:
        clusters: ``den`` must hold row counts.
        within: ``(n,)`` sums of squares of the rows about their cluster's mean.

    Raises:
        EstimationError: Where no arm has two clusters, no cluster has two rows, or nothing varies.
    """
    inner = np.asarray(within, dtype=np.float64)
    if inner.shape != clusters.num.shape or not np.isfinite(inner).all() or (inner < 0.0).any():
        raise EstimationError("within-cluster sums of squares must be one number, not negative, per cluster")
    some = clusters.den > 0.0
    num, size, arm = clusters.num[some], clusters.den[some], clusters.arm[some]
    between = df_between = unequal = 0.0
    for a in np.unique(arm):
        n, mean = size[arm == a], num[arm == a] / size[arm == a]
        between += float(n @ (mean - np.average(mean, weights=n)) ** 2)
        df_between += len(n) - 1
        unequal += float(n @ n / n.sum())
    df_within = float(size.sum()) - len(size)
    if not (df_between > 0.0 and df_within > 0.0):
        raise EstimationError("an intraclass correlation needs two clusters in an arm and clusters of several rows")
    m0 = (float(size.sum()) - unequal) / df_between
    msb, msw = between / df_between, float(inner.sum()) / df_within
    if not msb + (m0 - 1.0) * msw > 0.0:
        raise EstimationError("the outcome does not vary, so it has no intraclass correlation")
    return (msb - msw) / (msb + (m0 - 1.0) * msw)


def design_effect(sizes: ArrayLike, icc: float) -> float:
    """Variance of a row mean over that of as many independent rows: ``1 + (sum(n^2) / sum(n) - 1) * icc``.

    Kish (1965); for unequal sizes Eldridge, Ashby and Kerry (2006).
    """
    n = np.asarray(sizes, dtype=np.float64)
    if not (np.isfinite(n).all() and (n >= 0.0).all() and n.sum() > 0.0):
        raise EstimationError("cluster sizes must be finite, not negative, and not all zero")
    return 1.0 + (float(n @ n) / float(n.sum()) - 1.0) * icc


def _check_pairs(pairs: NDArray[Any], arm: Codes) -> None:
    names, codes = np.unique(pairs, return_inverse=True)
    for a, name in ((0, "control"), (1, "treatment")):
        if (many := np.bincount(codes[arm == a], minlength=len(names)) > 1).any():
            raise EstimationError(f"pair {names[int(np.argmax(many))]} has more than one cluster in {name}")


def _moments(num: Vector, den: Vector, chosen: NDArray[np.bool_], weights: str) -> Moments:
    return Moments.from_arrays(num[chosen], None if weights == "units" else den[chosen])


def _paired(data: Usable, num: Vector, den: Vector, alpha: float) -> Estimate:
    control, treatment = pair_positions(data.clusters)
    if (n := len(control)) < 2:
        raise EstimationError(f"there {'is' if n == 1 else 'are'} {n} whole pair{'s' * (n != 1)}; two are needed")
    values, scores = [], []
    for index in (control, treatment):
        value = float(num[index].sum() / den[index].sum())
        values.append(value)
        scores.append((num[index] - value * den[index]) / den[index].mean())
    std_error = _paired_error(scores[1] - scores[0])
    _refuse_flat(std_error, values)
    return finish(
        "cluster_means",
        estimate=values[1] - values[0],
        std_error=std_error,
        df=n - 1.0,
        alpha=alpha,
        control_value=values[0],
        treatment_value=values[1],
        n_control=n,
        n_treatment=n,
        relative=_paired_relative(values, scores, alpha),
        diagnostics={**data.diagnostics, "n_pairs": n},
    )


def _paired_error(differences: Vector) -> float:
    return float(np.std(differences, ddof=1)) / math.sqrt(len(differences))


def _paired_relative(values: list[float], scores: list[Vector], alpha: float) -> Relative:
    control, treatment = values
    if reason := relative_reason(control):
        return Relative(reason=reason)
    df = len(scores[0]) - 1.0
    if treatment > 0.0:
        return relative_from_log(
            control, treatment, _paired_error(scores[1] / treatment - scores[0] / control), df, alpha
        )
    ratio = treatment / control
    error = _paired_error(scores[1] / control - ratio * scores[0] / control)
    if not error > 0.0:
        return Relative(ratio - 1.0, reason=NO_SPREAD)
    return Relative(ratio - 1.0, *t_interval(ratio - 1.0, error, df, alpha))


def _stratified(data: Usable, num: Vector, den: Vector, alpha: float) -> Estimate:
    names, codes = np.unique(np.asarray(data.clusters.strata), return_inverse=True)
    share = np.bincount(codes, weights=den) / den.sum()
    values, variances, dfs = [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]
    for arm, arm_name in ((0, "control"), (1, "treatment")):
        parts: list[tuple[float, float]] = []
        for s, name in enumerate(names):
            mine = (codes == s) & (data.clusters.arm == arm)
            if (n := int(mine.sum())) < 2:
                raise EstimationError(
                    f"stratum {name} has {n} cluster{'s' * (n != 1)} in {arm_name}; cluster_means needs two in either "
                    "arm of every stratum, cluster_robust pools the strata's errors"
                )
            moments = Moments.from_arrays(num[mine], den[mine])
            values[arm] += share[s] * moments.value
            parts.append((share[s] ** 2 * moments.value_variance, n - 1.0))
        variances[arm], dfs[arm] = reduce(_add, parts)
    std_error = math.sqrt(sum(variances))
    _refuse_flat(std_error, values)
    pair = (dfs[1], dfs[0])
    return finish(
        "cluster_means",
        estimate=values[1] - values[0],
        std_error=std_error,
        df=satterthwaite((variances[1], variances[0]), pair),
        alpha=alpha,
        control_value=values[0],
        treatment_value=values[1],
        n_control=int((data.clusters.arm == 0).sum()),
        n_treatment=int((data.clusters.arm == 1).sum()),
        relative=relative_effect(values[0], values[1], variances[0], variances[1], pair, alpha),
        diagnostics={**data.diagnostics, "n_strata": len(names)},
    )


def _add(a: tuple[float, float], b: tuple[float, float]) -> tuple[float, float]:
    """Sum of two independent variances with its degrees of freedom; exact over any number of terms in turn."""
    if not a[0] + b[0] > 0.0:
        return 0.0, min(a[1], b[1])
    return a[0] + b[0], satterthwaite((a[0], b[0]), (a[1], b[1]))


def _refuse_flat(std_error: float, values: list[float]) -> None:
    # Rounding leaves a trace of the outcome's size; a spread below it is none.
    if std_error <= 1e-14 * max(map(abs, values)):
        raise EstimationError("the outcome does not vary between clusters, so nothing says how sure the estimate is")
