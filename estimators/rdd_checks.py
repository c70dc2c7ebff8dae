"""Checks of a regression discontinuity: what should not jump, and what should not hang on a choice.

- ``covariate_continuity``: facts from before the treatment have no jump at the cutoff (Lee 2008, *Randomized
  experiments from non-random selection*, Journal of Econometrics 142). A covariate is read as an outcome, with a
  bandwidth of its own; p-values are Holm-adjusted over covariates.
- ``bandwidth_sensitivity``: the effect at other bandwidths, with a test of each change. Bias-corrected points at two
  bandwidths are sums over the same rows, so the change has an error of its own, far below that of either point.
- ``donut``: the effect without the rows next to the cutoff, where sorting would show first (Barreca, Guldi, Lindo and
  Waddell 2011, *Saving babies? Revisiting the effect of very low birth weight classification*), with the test of the
  change.
- ``placebo_cutoffs``: the jump at cutoffs where nothing happens, each within one side of the true one (Imbens and
  Lemieux 2008, *Regression discontinuity designs: a guide to practice*, section 5.3), Holm-adjusted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from estimators.estimate import Estimate
from estimators.inference import EstimationError, t_interval, two_sided_p
from estimators.local_linear import check_options, local_linear
from estimators.local_polynomial import Codes, Side, Vector
from estimators.multiplicity import holm
from estimators.rdd_fits import Fits, Jump, fit_sides, split

FACTORS = (0.5, 0.75, 1.25, 1.5, 2.0)
HOLES = (0.05, 0.1, 0.2)
QUANTILES = (0.25, 0.5, 0.75)


@dataclass(frozen=True, slots=True)
class Reading:
    """A jump that a check looked at; the numbers are None where ``reason`` says why there are none.

    Attributes:
        at: The covariate's name, or the factor, the radius or the cutoff.
        estimate: The conventional point.
        std_error, p_value, ci_low, ci_high: Robust bias-corrected, as in ``local_linear``.
        adjusted_p_value: Holm-adjusted over the readings with numbers.
        h, b: Bandwidths.
        reason: Why there is no number; empty where there is one.
    """

    at: str | float
    estimate: float | None = None
    std_error: float | None = None
    p_value: float | None = None
    adjusted_p_value: float | None = None
    ci_low: float | None = None
    ci_high: float | None = None
    h: float | None = None
    b: float | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Change:
    """The effect under another choice, against the effect as it was read.

    Attributes:
        at: Factor of the bandwidths, or radius of the rows left out, in the running variable's unit.
        estimate, std_error, ci_low, ci_high: The effect there, as in ``local_linear``.
        change: Bias-corrected point there less that of the reading.
        change_std_error, change_p_value: Its error, and the two-sided test that it is nothing.
        h, b: Bandwidths.
        reason: Why there is no number; empty where there is one.
    """

    at: float
    estimate: float | None = None
    std_error: float | None = None
    ci_low: float | None = None
    ci_high: float | None = None
    change: float | None = None
    change_std_error: float | None = None
    change_p_value: float | None = None
    h: float | None = None
    b: float | None = None
    reason: str = ""


def covariate_continuity(
    covariates: ArrayLike, names: Sequence[str], running: ArrayLike, *, cutoff: float = 0.0, **options: Any
) -> tuple[Reading, ...]:
    """Jumps of covariates at the cutoff, in the order of ``names``.

    A covariate that is one constant below the cutoff and another above jumps for certain, with a p-value of 0.

    Args:
        covariates: ``(n, k)`` facts from before the treatment.
        names: ``k`` names.
        running: ``(n,)``.
        options: Those of ``local_linear``: ``clusters``, ``kernel``, ``order``, ``variance``, ``h``, ``b``, ``alpha``.
    """
    z = np.asarray(covariates, dtype=np.float64)
    if z.ndim != 2 or z.shape[1] != len(names):
        raise EstimationError("covariates must be a table with one column a name")
    found = []
    for j, name in enumerate(names):
        found.append(_exact(name, z[:, j], running, cutoff) or _reading(name, z[:, j], running, cutoff, options))
    return _adjusted(found)


def _exact(name: str, z: Vector, running: ArrayLike, cutoff: float) -> Reading | None:
    """What is known without an error: a covariate that is constant, or constant on either side of the cutoff."""
    below, above = (side.values[:, 0] for side in split(z, running, cutoff))
    if float(np.ptp(below)) > 0.0 or float(np.ptp(above)) > 0.0:
        return None
    jump = float(above[0] - below[0])
    if jump == 0.0:
        return Reading(name, reason="it is the same throughout, so it cannot jump")
    return Reading(name, estimate=jump, std_error=0.0, p_value=0.0, ci_low=jump, ci_high=jump)


def placebo_cutoffs(
    outcome: ArrayLike,
    running: ArrayLike,
    *,
    cutoff: float = 0.0,
    cutoffs: Sequence[float] | None = None,
    clusters: ArrayLike | None = None,
    **options: Any,
) -> tuple[Reading, ...]:
    """Jumps where there should be none; the true cutoff's own jump never enters, as each reads one side alone.

    Args:
        outcome, running: ``(n,)``.
        cutoffs: Where to look; None: the quartiles of the running variable on either side.
        clusters: ``(n,)`` labels; None: rows are independent.
        options: Further ones of ``local_linear``; not ``h``, which is chosen for each cutoff.
    """
    x, y = np.asarray(running, dtype=np.float64), np.asarray(outcome, dtype=np.float64)
    labels = None if clusters is None else np.asarray(clusters)
    if cutoffs is None:
        halves = (x[x < cutoff], x[x >= cutoff])
        cutoffs = [float(v) for half in halves if len(half) for v in np.unique(np.quantile(half, QUANTILES))]
    found = []
    for at in cutoffs:
        if at == cutoff:
            found.append(Reading(at, reason="it is the true cutoff"))
            continue
        own = x < cutoff if at < cutoff else x >= cutoff
        more = options if labels is None else {**options, "clusters": labels[own]}
        found.append(_reading(at, y[own], x[own], at, more))
    return _adjusted(found)


def bandwidth_sensitivity(
    outcome: ArrayLike, running: ArrayLike, *, h: float, b: float, factors: Sequence[float] = FACTORS, **options: Any
) -> tuple[Change, ...]:
    """The effect at ``factor * h`` and ``factor * b``, in the order of ``factors``.

    Args:
        outcome, running: ``(n,)``.
        h, b: Bandwidths of the reading (its ``diagnostics["bandwidth"]``).
        factors: What they are multiplied by.
        options: Those of ``local_linear``: ``cutoff``, ``takeup``, ``covariates``, ``clusters``, ``kernel``, ``order``,
            ``variance``, ``alpha``.

    Raises:
        EstimationError: Where the reading itself cannot be had.
    """
    base = _Points.of(outcome, running, h, b, options)
    return tuple(base.against(factor, base.sides, factor * h, factor * b) for factor in factors)


def donut(
    outcome: ArrayLike, running: ArrayLike, *, h: float, b: float, holes: Sequence[float] = HOLES, **options: Any
) -> tuple[Change, ...]:
    """The effect without the rows nearer to the cutoff than a radius, at the same bandwidths.

    Args:
        holes: Radii as shares of ``h``.
        outcome, running, h, b, options: As in ``bandwidth_sensitivity``.
    """
    base = _Points.of(outcome, running, h, b, options)
    out = []
    for hole in holes:
        below, above = (_without(side, np.abs(side.x) < hole * h) for side in base.sides)
        out.append(base.against(hole * h, (below, above), h, b))
    return tuple(out)


@dataclass(frozen=True, slots=True)
class _Points:
    """The reading that changes are measured from, with every row's part in it."""

    sides: tuple[Side, Side]
    jump: Jump
    parts: tuple[Vector, Vector]
    how: dict[str, Any]
    alpha: float

    @classmethod
    def of(cls, outcome: ArrayLike, running: ArrayLike, h: float, b: float, options: dict[str, Any]) -> _Points:
        given = dict(options)
        facts = {name: given.pop(name, None) for name in ("takeup", "covariates", "clusters")}
        alpha, cutoff = given.pop("alpha", 0.05), given.pop("cutoff", 0.0)
        how = {"kernel": "triangular", "order": 1, "variance": "nn", **given}
        check_options(**how, h=h, b=b)
        how["outcomes"] = 1 + (facts["takeup"] is not None)
        sides = split(outcome, running, cutoff, **facts)
        jump, parts = _read(sides, h, b, how)
        return cls(sides, jump, parts, how, alpha)

    def against(self, at: float, sides: tuple[Side, Side], h: float, b: float) -> Change:
        """The effect in ``sides`` at ``h`` and ``b``, and how far it moved."""
        try:
            found, parts = _read(sides, h, b, self.how)
        except EstimationError as error:
            return Change(at, h=h, b=b, reason=str(error))
        change = found.corrected - self.jump.corrected
        moved = math.sqrt(sum(map(_squares, self.sides, self.parts, _spread(self.sides, sides, parts))))
        low, high = t_interval(found.corrected, found.std_error, math.inf, self.alpha)
        reading = Change(at, found.estimate, found.std_error, low, high, change, h=h, b=b)
        if not moved > 1e-12 * self.jump.std_error:
            return replace(reading, reason="the same rows count alike, so nothing could change")
        return replace(reading, change_std_error=moved, change_p_value=two_sided_p(change / moved, math.inf))


def _read(sides: tuple[Side, Side], h: float, b: float, how: dict[str, Any]) -> tuple[Jump, tuple[Vector, Vector]]:
    """The jump, and by side the ``(n,)`` parts whose squares are its robust variance; 0 for rows without weight."""
    fits: Fits = fit_sides(sides, h, b, **how)
    fuzzy = how["outcomes"] == 2
    below, above = fits.parts(fuzzy)
    reach = max(h, b)
    rows = []
    for side, part in zip(sides, (below, above), strict=True):
        full = np.zeros(len(side.x))
        full[side.inside(reach, how["kernel"])] = part
        rows.append(full)
    return (fits.ratio() if fuzzy else fits.jump()), (rows[0], rows[1])


def _spread(whole: tuple[Side, Side], sides: tuple[Side, Side], parts: tuple[Vector, Vector]) -> list[Vector]:
    """Parts laid over the rows of the whole sides; the rows left out stand next to the cutoff."""
    out = []
    for full, side, part in zip(whole, sides, parts, strict=True):
        laid = np.zeros(len(full.x))
        if full.name == "below":
            laid[: len(side.x)] = part
        else:
            laid[len(full.x) - len(side.x) :] = part
        out.append(laid)
    return out


def _squares(side: Side, before: Vector, after: Vector) -> float:
    moved = after - before
    if side.clusters is None:
        return float(moved @ moved)
    sums = np.bincount(side.clusters, weights=moved)
    return float(sums @ sums)


def _without(side: Side, out: np.ndarray[Any, np.dtype[np.bool_]]) -> Side:
    codes: Codes | None = None if side.clusters is None else side.clusters[~out]
    return Side(side.name, side.x[~out], side.values[~out], codes)


def _reading(at: str | float, y: Vector, x: ArrayLike, cutoff: float, options: dict[str, Any]) -> Reading:
    try:
        found: Estimate = local_linear(y, x, cutoff=cutoff, **options)
    except EstimationError as error:
        return Reading(at, reason=str(error))
    width = found.diagnostics["bandwidth"]
    return Reading(at, found.estimate, found.std_error, found.p_value, None, found.ci_low, found.ci_high, **width)


def _adjusted(found: list[Reading]) -> tuple[Reading, ...]:
    some = [r.p_value for r in found if r.p_value is not None]
    adjusted = iter(holm(some) if some else ())
    return tuple(r if r.p_value is None else replace(r, adjusted_p_value=float(next(adjusted))) for r in found)
