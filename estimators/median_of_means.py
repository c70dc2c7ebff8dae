"""Median of means: each arm's units are put into groups at random, and the median of the groups' means is its value.

Estimand: the difference of the arms' means (or ratios of sums). The median of the group means is off a skewed mean by
about a sixth of its skewness times its standard deviation over the units of a group; between arms of like shape this
cancels, as groups hold as many units in either arm: the larger arm has more of them. It deviates as a normal mean would
though the outcome has no more than a variance: Lugosi and Mendelson (2019), *Mean estimation and regression under
heavy-tailed distributions*, theorem 2, with ``8 log(1 / alpha)`` groups.

The interval is the normal one of Minsker (2019), *Distributed statistical estimation and rates of convergence in normal
approximation*, by which the median of ``k`` group means has ``pi / 2`` times the variance of their mean. That variance
is taken from the units themselves: with Welch's degrees of freedom. It is wider by a quarter than that of the mean, for
which one wild group cannot move the estimate.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from estimators.difference_in_means import relative_effect
from estimators.estimate import Estimate
from estimators.inference import EstimationError, finish, satterthwaite
from estimators.moments import Moments

Vector = NDArray[np.float64]
ArmArrays = tuple[ArrayLike, ArrayLike | None]
Split = NDArray[np.int64]
# Below so many units a group's mean is little better than a unit's value, below so many groups a median is no help.
LEAST_UNITS, LEAST_GROUPS = 5, 5


def default_groups(alpha: float, n: int) -> int:
    """``8 log(1 / alpha)`` groups, fewer where they would hold under five units each."""
    return max(min(math.ceil(8.0 * math.log(1.0 / alpha)), n // LEAST_UNITS), 1)


def groups_of(wanted: int | None, smaller: int, alpha: float) -> int:
    """How many groups: as wanted, else by default, for arms of which the smaller has so many units.

    Raises:
        EstimationError: Fewer than five groups of five units.
    """
    k = default_groups(alpha, smaller) if wanted is None else wanted
    if k < LEAST_GROUPS or smaller < k * LEAST_UNITS:
        k = max(k, LEAST_GROUPS)
        need = k * LEAST_UNITS
        raise EstimationError(f"{k} groups of {LEAST_UNITS} units need {need} in each arm; one has {smaller}")
    return k


def split(n: int, groups: int, seed: int = 0) -> Split:
    """A random group for each of ``n`` units, sizes differing by one at most."""
    return np.random.default_rng(seed).permutation(np.arange(n, dtype=np.int64) % groups)


def split_arms(
    sizes: tuple[int, int], groups: int | None = None, *, alpha: float = 0.05, seed: int = 0
) -> tuple[Split, Split]:
    """Groups of as many units in either arm: ``groups`` in the smaller one, in the larger as many more as it has units.

    Args:
        sizes: Units of control and treatment.
        groups, alpha: As in :func:`groups_of`.

    Raises:
        EstimationError: As :func:`groups_of`.
    """
    k, smaller = groups_of(groups, min(sizes), alpha), min(sizes)
    counts = [round(k * n / smaller) for n in sizes]
    return split(sizes[0], counts[0], seed), split(sizes[1], counts[1], seed + 1)


def median_of_means(
    control: ArmArrays,
    treatment: ArmArrays,
    *,
    groups: int | None = None,
    splits: tuple[Split, Split] | None = None,
    seed: int = 0,
    alpha: float = 0.05,
) -> Estimate:
    """Difference of the medians of group means.

    Args:
        control, treatment: ``(num, den)`` by unit, in an order that means nothing; ``den`` None for a plain mean.
        groups: Groups in the smaller arm; None: ``default_groups`` of it.
        splits: Each unit's group, from 0, where they are known already; then ``groups`` and ``seed`` do nothing.
        seed: Of the split.

    Returns:
        The estimate in the outcome's unit; ``diagnostics["groups"]`` is the number of groups in the smaller arm.

    Raises:
        EstimationError: As ``groups_of``, a group without a denominator, and as ``Moments``.
    """
    arms = [_arrays(arm) for arm in (control, treatment)]
    sizes = len(arms[0][0]), len(arms[1][0])
    if splits is None:
        splits = split_arms(sizes, groups, alpha=alpha, seed=seed)
    counts = [1 + int(of.max()) for of in splits]
    c, t = (_median(arm, of, k) for arm, of, k in zip(arms, splits, counts, strict=True))
    moments = [Moments.from_arrays(*arm) for arm in arms]
    var_c, var_t = (math.pi / 2.0 * m.value_variance for m in moments)
    dfs = (moments[1].n - 1.0, moments[0].n - 1.0)
    return finish(
        "median_of_means",
        estimate=t - c,
        std_error=math.sqrt(var_t + var_c),
        df=satterthwaite((var_t, var_c), dfs),
        alpha=alpha,
        control_value=c,
        treatment_value=t,
        n_control=moments[0].n,
        n_treatment=moments[1].n,
        relative=relative_effect(c, t, var_c, var_t, dfs, alpha),
        diagnostics={"groups": min(counts)},
    )


def _arrays(arm: ArmArrays) -> tuple[Vector, Vector | None]:
    num, den = arm
    return np.asarray(num, dtype=np.float64), None if den is None else np.asarray(den, dtype=np.float64)


def _median(arm: tuple[Vector, Vector | None], of: Split, k: int) -> float:
    num, den = arm
    centre = float(num.mean()) if den is None else 0.0
    top = np.bincount(of, num - centre, k)
    bottom = np.bincount(of, den, k).astype(np.float64)
    if not (bottom > 0.0).all():
        raise EstimationError("a group's denominator does not sum to a positive number; take fewer groups")
    return centre + float(np.median(top / bottom))
