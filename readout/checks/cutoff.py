"""Does the cutoff tell an effect: nobody sorts across it, nothing else jumps there, and no choice of ours decides?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from estimators import rdd_checks
from estimators.estimate import Estimate
from estimators.inference import EstimationError
from estimators.local_linear import local_linear
from estimators.multiplicity import holm
from estimators.rdd_checks import Change, Reading
from estimators.rdd_density import DensityTest, density_test
from readout.checks.base import percent, share, threshold
from readout.evidence import Evidence
from readout.memo.numbers import effect as shown
from readout.memo.numbers import number
from readout.results import Check
from readout.samples.discontinuity import Discontinuity
from readout.samples.held import Vector
from readout.samples.near_cutoff import Points
from readout.spec.metrics import Metric
from readout.text import named, visible

Bools = NDArray[np.bool_]

FAMILY: Final = "identification"
# Standard errors between no jump and one that a test at 5 % finds with a power of 80 %.
SEEN = 2.8
# A change with the bandwidth matters from this part of the effect (or of the minimum effect) on: it is but a part of
# what the bandwidth took for a jump.
PART = 0.1
# A level or a flag on fewer rows than this, or on all but so few, is not compared: its jump has no normal error.
FEWEST = 50
# So many rows next to the cutoff, on either side, follow it but for this share: a cutoff that is stated a little off is
# wrong there alone.
NEAREST, NEAREST_SHARE = 50, 0.1
# Different values of the running variable near the cutoff, on either side, below which its density is not tested: with
# fewer the test fires too often where nobody sorts.
NEAR = 30
# A placebo cutoff has so many rows, or units that stand on several, on either side of it.
PLACEBO_ROWS = 50
# Where a test fires by default: with bandwidths chosen on some hundred rows errors come out a little small, and tests
# at these levels fire in 2 to 6 % where nothing jumps.
JUMP_LEVEL, PLACEBO_LEVEL = 0.04, 0.02
# Errors of the checks' own fits: those of the nearest neighbours find jumps too often where rows are few.
VARIANCE = "hc3"


def treatment_start(evidence: Evidence) -> Check:
    """In a sharp design the treatment ran from the cutoff on and not below it."""
    name, sample = "treatment_start", _sample(evidence)
    if sample.design.fuzzy:
        return Check(name, "assignment", "skip", "the cutoff only makes treatment likelier (fuzzy): see first_stage")
    takeup = sample.takeup
    if takeup is None:
        message = "no column says which action ran: map executed and name design.control and design.treatment"
        return Check(name, "assignment", "skip", message)
    known, beyond = np.isfinite(takeup), sample.running >= sample.cutoff
    if not known.any():
        return Check(name, "assignment", "skip", f"the role {sample.action!r} is null on every row")
    left, early = int((known & beyond & (takeup == 0.0)).sum()), int((known & ~beyond & (takeup == 1.0)).sum())
    limit = threshold(evidence.spec, name, 0.01)
    value = share(left + early, int(known.sum()))
    action = named(sample.design.treatment[0])
    if not left and not early:
        message = f"{action} ran on all {int(beyond.sum()):,} rows from the cutoff on, on none of the others"
        if not known.all():
            message = f"{action} ran from the cutoff on and not below it, on all {int(known.sum()):,} rows that say"
        return Check(name, "assignment", "pass", message, value=value, threshold=limit)
    message = (
        f"{action} did not run on {left:,} of {int((known & beyond).sum()):,} rows from the cutoff on, and ran on "
        f"{early:,} of {int((known & ~beyond).sum()):,} below it ({percent(value)} of all)"
    )
    if value > limit:
        if left > (known & beyond).sum() / 2 and early > (known & ~beyond).sum() / 2:
            message += f": {action} runs below the cutoff; are control and treatment exchanged?"
            return Check(name, "assignment", "fail", message, value=value, threshold=limit, action="pause")
        message += ": the cutoff does not decide alone; say design.fuzzy: true if it makes treatment likelier"
        return Check(name, "assignment", "fail", message, value=value, threshold=limit, action="pause")
    if (near := _near_share(sample.running[known] - sample.cutoff, takeup[known])) > NEAREST_SHARE:
        message += f", but on {percent(near)} of the {NEAREST} rows nearest on a side: is the cutoff elsewhere?"
        message += _begins(sample.running[known], takeup[known])
        return Check(name, "assignment", "fail", message, value=near, threshold=NEAREST_SHARE, action="pause")
    return Check(name, "assignment", "pass", message, value=value, threshold=limit)


def _near_share(at: Vector, takeup: Vector) -> float:
    """Share of the rows nearest to the cutoff, on the worse side, whose action is not their side's."""
    sides = ((takeup[at < 0.0] == 1.0)[-NEAREST:], (takeup[at >= 0.0] == 0.0)[:NEAREST])
    return max((float(wrong.mean()) for wrong in sides if len(wrong)), default=0.0)


def _begins(x: Vector, takeup: Vector) -> str:
    """From where on the treatment ran, where one value parts the rows."""
    if not (takeup == 1.0).any() or not (takeup == 0.0).any():
        return ""
    first, last = float(x[takeup == 1.0].min()), float(x[takeup == 0.0].max())
    return f" the treatment begins at {number(first, 6)}" if last < first else ""


def density(evidence: Evidence) -> Check:
    """The running variable's density does not jump at the cutoff (Cattaneo, Jansson and Ma 2020)."""
    name, sample = "density", _sample(evidence)
    x, of = _one_a_unit(sample)
    try:
        found = density_test(x, cutoff=sample.cutoff)
    except EstimationError as error:
        return Check(name, FAMILY, "skip", str(error))
    details = {"density": asdict(found)}
    near = _values_near(x - sample.cutoff, found)
    running = visible(sample.design.running)
    if near < NEAR:
        message = f"{running} takes {near} different values near the cutoff on a side, too few to see a density"
        return Check(name, FAMILY, "skip", message, details=details)
    limit = threshold(evidence.spec, name, 0.05)
    least, mean = SEEN * found.std_error, (found.below + found.above) / 2.0
    if found.p_value >= limit and least >= 2.0 * mean:
        message = f"{len(x):,} {of} are too few: not even a side left empty would have been seen"
        return Check(name, FAMILY, "skip", message, details=details)
    numbers = (found.statistic, found.p_value, found.p_value, limit)
    # A fit may fall below zero where a side is nearly empty.
    below, above = (max(value, 0.0) for value in (found.below, found.above))
    said = f"{below:.3g} from below and {above:.3g} from above (p = {found.p_value:.2g}; {len(x):,} {of})"
    if found.p_value < limit:
        why = "some are placed on a side, or values heap there"
        message = f"the density of {running} jumps at the cutoff, {said}: {why}"
        return Check(name, FAMILY, "fail", message, *numbers, "stronger_design", details)
    seen = f"a jump of {percent(least / mean)} would have been seen with a power of 80 %"
    return Check(name, FAMILY, "pass", f"the density of {running} is {said}; {seen}", *numbers, None, details)


def covariate_continuity(evidence: Evidence) -> Check:
    """What stood before the treatment does not jump at the cutoff; p-values are Holm-adjusted over columns."""
    name, sample = "covariate_continuity", _sample(evidence)
    if not sample.known:
        message = "nothing from before the treatment is declared (logs.columns.features, state, design.covariates)"
        return Check(name, FAMILY, "skip", message)
    matrix, names, left = sample.fact_matrix()
    seen = [j for j in range(len(names)) if _varied(matrix[:, j])]
    left += [names[j] for j in range(len(names)) if j not in seen]
    found = rdd_checks.covariate_continuity(
        matrix[:, seen], [names[j] for j in seen], sample.running,
        cutoff=sample.cutoff, clusters=sample.clusters, **_how(sample),
    )  # fmt: skip
    tested = [r for r in found if r.adjusted_p_value is not None]
    left += [str(r.at) for r in found if r.adjusted_p_value is None]
    untested = f"; not compared (one value, few rows, text with many levels, a list or a time): {', '.join(left)}"
    untested = untested if left else ""
    details = {"covariate_continuity": [asdict(r) for r in found]}
    if not tested:
        return Check(name, FAMILY, "skip", "nothing that is declared could be compared" + untested, details=details)
    limit = threshold(evidence.spec, name, JUMP_LEVEL)
    worst = min(tested, key=_adjusted)
    numbers = (None, _adjusted(worst), _adjusted(worst), limit)
    if _adjusted(worst) < limit:
        jumps = [_jump(r) for r in sorted(tested, key=_adjusted) if _adjusted(r) < limit]
        message = "what stood before the treatment jumps at the cutoff: " + "; ".join(jumps[:5]) + untested
        return Check(name, FAMILY, "fail", message, *numbers, "stronger_design", details)
    message = f"none of {len(tested)} jumps at the cutoff; the most, {_jump(worst)}{untested}"
    return Check(name, FAMILY, "pass", message, *numbers, None, details)


def first_stage(evidence: Evidence) -> Check:
    """Crossing the cutoff moves take-up: the squared robust statistic of its jump."""
    name, sample = "first_stage", _sample(evidence)
    if not sample.design.fuzzy:
        return Check(name, FAMILY, "skip", "the cutoff decides who is treated (sharp)")
    metric = next(m for m in evidence.spec.metrics.values() if m.role == "primary")
    found = evidence.effect(metric.name, 1)
    if found is None:
        return Check(name, FAMILY, "skip", f"not estimated: {evidence.why_not(metric.name, 1)}")
    jump, f = found.diagnostics["first_stage"]["estimate"], found.diagnostics["first_stage_f"]
    limit = threshold(evidence.spec, name, 10.0)
    if jump < 0.0:
        action = named(sample.design.treatment[0])
        by = f"{-100 * jump:.3g} points"
        message = f"{action} runs on fewer rows from the cutoff on, by {by}: swap design.control and design.treatment"
        return Check(name, FAMILY, "fail", message, f, None, f, limit, "stronger_design")
    said = f"take-up jumps by {100 * jump:.3g} points at the cutoff"
    if f is None:
        return Check(name, FAMILY, "pass", f"{said}, to the letter: the design could be sharp", threshold=limit)
    message = f"{said} (F = {number(f)})"
    if f < limit:
        message += f": below {limit:g}, so that intervals of the effect are not to be trusted"
        return Check(name, FAMILY, "fail", message, f, None, f, limit, "stronger_design")
    return Check(name, FAMILY, "pass", message, f, None, f, limit)


def bandwidth_sensitivity(evidence: Evidence) -> Check:
    """A narrower bandwidth does not move a primary by more than chance and by more than a tenth of the effect.

    A wide bandwidth takes a bend for a jump; a narrower one would then show another effect. Half and three quarters of
    it are read, and where the spec gives one the bandwidth that would be chosen. Wider ones are only shown.
    """
    name, sample = "bandwidth_sensitivity", _sample(evidence)
    rows: list[dict[str, Any]] = []
    holes: list[dict[str, Any]] = []
    tests: list[tuple[Metric, Estimate, Change]] = []
    for metric, points, found in _primaries(evidence, sample):
        given = {**_facts(sample, points), **found.diagnostics["bandwidth"], **sample.how}
        given |= {"covariates": points.covariates, "takeup": points.takeup, "alpha": evidence.spec.decision.alpha}
        factors = (*_chosen(sample, points, found), *rdd_checks.FACTORS)
        changes = rdd_checks.bandwidth_sensitivity(points.y, points.x, factors=factors, **given)
        rows += [{"metric": metric.name, **asdict(c)} for c in changes]
        holes += [{"metric": metric.name, **asdict(c)} for c in rdd_checks.donut(points.y, points.x, **given)]
        tests += [(metric, found, c) for c in changes if c.at < 1.0 and c.change_p_value is not None]
    details = {"bandwidth_sensitivity": rows, "donut": holes}
    if not tests:
        return Check(name, FAMILY, "skip", _unread(evidence, rows) or "nothing to read", details=details)
    limit = threshold(evidence.spec, name, 0.05)
    adjusted = [float(p) for p in holm([c.change_p_value or 0.0 for _, _, c in tests])]
    worst = min(range(len(tests)), key=lambda i: adjusted[i])
    numbers = (None, adjusted[worst], adjusted[worst], limit)
    moved = [tests[i] for i in range(len(tests)) if adjusted[i] < limit]
    if matters := [one for one in moved if abs(one[2].change or 0.0) > PART * _size(*one[:2])]:
        message = "; ".join(map(_change, matters)) + ": the bandwidth takes a bend for part of the jump; narrow it"
        return Check(name, FAMILY, "fail", message, *numbers, "stronger_design", details)
    if moved:
        message = "; ".join(map(_change, moved)) + ": more than chance, but less than a tenth of the effect"
        return Check(name, FAMILY, "warn", message, *numbers, None, details)
    if not any(_visible(*one) for one in tests):
        message = f"a change as large as the effect would not have been seen; {_change(tests[worst])}"
        return Check(name, FAMILY, "skip", message, *numbers, None, details)
    return Check(name, FAMILY, "pass", "; ".join(map(_change, tests)), *numbers, None, details)


def placebo(evidence: Evidence) -> Check:
    """Primaries do not jump where nothing happens: at the quartiles of either side; Holm-adjusted over all of them."""
    name, sample = "placebo", _sample(evidence)
    found: list[tuple[str, Reading]] = []
    for metric, points, _ in _primaries(evidence, sample):
        facts = {**_facts(sample, points), **_how(sample), "cutoffs": _elsewhere(sample, points)}
        found += [(metric.name, r) for r in rdd_checks.placebo_cutoffs(points.y, points.x, **facts)]
    tested = [(metric, r) for metric, r in found if r.p_value is not None]
    rows = [{"metric": metric, **asdict(r)} for metric, r in found]
    if not tested:
        few = f"no other cutoff has {PLACEBO_ROWS} rows or units on either side of it"
        return Check(name, FAMILY, "skip", _unread(evidence, rows) or few, details={"placebo_cutoffs": rows})
    adjusted = [float(p) for p in holm([r.p_value or 0.0 for _, r in tested])]
    by_place = {(metric, r.at): p for (metric, r), p in zip(tested, adjusted, strict=True)}
    rows = [{**row, "adjusted_p_value": by_place.get((row["metric"], row["at"]))} for row in rows]
    limit = threshold(evidence.spec, name, PLACEBO_LEVEL)
    worst = min(range(len(tested)), key=lambda i: adjusted[i])
    numbers, details = (None, adjusted[worst], adjusted[worst], limit), {"placebo_cutoffs": rows}
    said = [f"{metric} by {shown(r.estimate, r.ci_low, r.ci_high)} at {number(float(r.at), 4)}" for metric, r in tested]
    if adjusted[worst] < limit:
        jumps = [said[i] for i in range(len(tested)) if adjusted[i] < limit]
        message = f"the outcome jumps where nothing happens: {'; '.join(jumps)}"
        return Check(name, FAMILY, "fail", message, *numbers, "stronger_design", details)
    message = f"none of {len(tested)} other cutoffs shows a jump; the most, {said[worst]}"
    return Check(name, FAMILY, "pass", message, *numbers, None, details)


def _sample(evidence: Evidence) -> Discontinuity:
    assert isinstance(evidence.sample, Discontinuity)
    return evidence.sample


def _how(sample: Discontinuity) -> dict[str, Any]:
    """The estimator's options, with errors that hold where rows are few."""
    return {**sample.how, "variance": VARIANCE}


def _facts(sample: Discontinuity, points: Points) -> dict[str, Any]:
    return {"cutoff": sample.cutoff, "clusters": points.clusters}


def _primaries(evidence: Evidence, sample: Discontinuity) -> list[tuple[Metric, Points, Estimate]]:
    """Primaries that have an effect, ratios aside."""
    found = []
    for metric in evidence.spec.metrics.values():
        effect = evidence.effect(metric.name, 1) if metric.role == "primary" and metric.numerator is None else None
        if effect is not None:
            found.append((metric, sample.points(evidence.terms[metric.name]), effect))
    return found


def _chosen(sample: Discontinuity, points: Points, found: Estimate) -> tuple[float, ...]:
    """The bandwidth that would be chosen, as a part of the one that the spec gives; nothing where it is no narrower."""
    if sample.design.bandwidth is None:
        return ()
    facts = {**_facts(sample, points), **sample.how, "takeup": points.takeup, "covariates": points.covariates}
    try:
        h = local_linear(points.y, points.x, **facts).diagnostics["bandwidth"]["h"]
    except EstimationError:
        return ()
    part = h / found.diagnostics["bandwidth"]["h"]
    return (part,) if part < 1.0 else ()


def _unread(evidence: Evidence, rows: Sequence[dict[str, Any]]) -> str:
    """Why nothing could be tested."""
    if reasons := dict.fromkeys(row["reason"] for row in rows if row["reason"]):
        return "; ".join(reasons)
    primaries = [m for m in evidence.spec.metrics.values() if m.role == "primary"]
    if all(m.numerator is not None for m in primaries):
        return "a primary that is a ratio is not read again at other places"
    return "; ".join(why for m in primaries if (why := evidence.why_not(m.name, 1)))


def _elsewhere(sample: Discontinuity, points: Points) -> list[float]:
    """Quartiles of the running variable on either side of the cutoff that have enough rows on both sides of them."""

    def count(rows: Bools) -> int:
        return int(rows.sum()) if points.clusters is None else len(np.unique(points.clusters[rows]))

    found = []
    for half in (points.x < sample.cutoff, points.x >= sample.cutoff):
        for at in np.unique(np.quantile(points.x[half], rdd_checks.QUANTILES)) if half.any() else ():
            if min(count(half & (points.x < at)), count(half & (points.x >= at))) >= PLACEBO_ROWS:
                found.append(float(at))
    return found


def _one_a_unit(sample: Discontinuity) -> tuple[Vector, str]:
    """The running variable, one row a unit: rows of one unit do not sort themselves apart."""
    units = sample.clusters
    if units is None:
        return sample.running, "rows"
    # By a hash of the value and the unit's label, so that which row stands for a unit does not hang on the log's order.
    frame = sample.held.frame.select(unit=pl.Series(units), x="x")
    drawn = frame.with_columns(draw=pl.struct("unit", "x").hash(sample.seed)).sort("unit", "draw", "x")
    return drawn.group_by("unit", maintain_order=True).agg(pl.col("x").first())["x"].to_numpy(), "units, a row each"


def _values_near(at: Vector, found: DensityTest) -> int:
    """Different values within the bandwidth, on the side that has fewer."""
    below, above = (at < 0.0) & (at >= -found.h_below), (at >= 0.0) & (at <= found.h_above)
    return min(len(np.unique(at[near])) for near in (below, above))


def _varied(z: Vector) -> bool:
    """Whether a covariate has enough rows off its most frequent value for its jump to have a normal error."""
    _, counts = np.unique(z, return_counts=True)
    return len(counts) > 2 or int(counts.min()) >= FEWEST


def _adjusted(reading: Reading) -> float:
    return 1.0 if reading.adjusted_p_value is None else reading.adjusted_p_value


def _jump(r: Reading) -> str:
    return f"{visible(str(r.at), 60)!r} by {shown(r.estimate, r.ci_low, r.ci_high)} (p = {_adjusted(r):.2g})"


def _size(metric: Metric, found: Estimate) -> float:
    """The effect, or the smallest one worth acting on where that is larger, in the metric's unit."""
    least = 0.0
    if (effect := metric.minimum_effect) is not None:
        least = effect.value * (abs(found.control_value) if effect.relative else 1.0)
    return max(abs(found.estimate), least)


def _visible(metric: Metric, found: Estimate, change: Change) -> bool:
    """Whether a change as large as the effect, or as the interval is wide to a side, would have been seen."""
    wide = (found.ci_high - found.ci_low) / 2.0
    return SEEN * (change.change_std_error or 0.0) <= max(_size(metric, found), wide)


def _change(one: tuple[Metric, Estimate, Change]) -> str:
    metric, found, change = one
    at = shown(change.estimate, change.ci_low, change.ci_high)
    moved = f"the corrected point moves by {number(change.change, 3, True)} (p = {change.change_p_value:.2g})"
    return (
        f"{metric.name} is {at} at {change.at:.3g} of the bandwidth, against {number(found.estimate, 3, True)}: {moved}"
    )
