"""Do the arms share what the treatment changes?"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, replace
from datetime import timedelta

import numpy as np
import polars as pl

from estimators import ols
from estimators.fixed_effects import sweep
from estimators.inference import EstimationError, minimum_detectable_effect, two_sided_p
from readout.checks import between_clusters
from readout.checks.base import Slope, percent, share, threshold
from readout.evidence import Evidence, count
from readout.logs import Logs
from readout.logs.frame import NO_ARM, REASONS
from readout.reduce import Table
from readout.results import Check
from readout.samples import Blocks
from readout.spec.metrics import Metric
from readout.spec.model import Spec
from readout.terms import UNIT_LEVEL, Term

WINDOWS, BYSTANDERS, BATCHES = "windows", "bystanders", "batches"
WINDOW = timedelta(minutes=5)
SHARE_TO_FAIL = 0.05
# The size of effect that has to be seen where a metric states neither margin nor minimum effect.
DEFAULT_EFFECT = 0.05
# Logs with more rows than this are sampled for the untreated: so many cells say enough.
MOST_CELLS = 250_000
FEWEST_CELLS = 50
EMPTY = 1e-12
STATE = "state "


def tables(spec: Spec, logs: Logs, outcomes: dict[str, pl.Expr]) -> list[Table]:
    """Assigned share by cluster and window, what the untreated met there, and batches by the arms in them."""
    found = []
    if _has_windows(spec, logs):
        found += _neighbours(spec, logs, outcomes)
    if (batch := batch_column(spec, logs)) is not None:
        arm = pl.col("@arm_code")
        where = pl.col("@drop").is_null() & pl.col(batch).is_not_null()
        found.append(
            Table(BATCHES, {"batch": pl.col(batch).hash(0)}, where, minima={"least": arm}, maxima={"most": arm})
        )
    return found


def _neighbours(spec: Spec, logs: Logs, outcomes: dict[str, pl.Expr]) -> list[Table]:
    assigned = pl.col("@arm_code").fill_null(0) > 0
    may_be_treated = pl.col("@eligible").fill_null(False) if logs.has("eligible") else pl.lit(True)
    eligible = pl.col("@arm_code").is_not_null() & may_be_treated
    # Only rows that were not assigned to treatment: who is left untreated in a treated arm is a selection.
    bystander = ~assigned
    if logs.has("executed"):
        bystander &= ~pl.col("@executed").is_in(list(spec.design.treatment)).fill_null(False)
    window = pl.col("@time").dt.epoch("us") // (WINDOW // timedelta(microseconds=1))
    keys = {"cluster": pl.col("@cluster").cast(pl.String).fill_null(""), "window": window}
    system = pl.col("@drop").is_null() | (pl.col("@drop") == REASONS.index(NO_ARM))
    system &= pl.col("@time").is_not_null()
    sums: dict[str, pl.Expr] = {"eligible": count(eligible)}
    for name, value in outcomes.items():
        mine = pl.when(bystander).then(value)
        sums |= {f"{name}|num": mine, f"{name}|n": count(mine.is_not_null())}
    where, who = system & ~assigned, {"eligible row": eligible}
    if _by_unit(spec, logs):
        unit = pl.col("@unit").hash(0)
        who["unit"] = unit
        if (one_in := math.ceil(logs.source.rows / MOST_CELLS)) > 1:
            # Whole units keep light users comparable with themselves, single cells keep heavy users in.
            where &= (unit % one_in == 0) | ((unit ^ window.hash(0)) % one_in == 0)
    counts = {"eligible": count(eligible), "assigned": count(eligible & assigned)}
    return [Table(WINDOWS, keys, system, sums=counts), Table(BYSTANDERS, {**keys, **who}, where, sums=sums)]


def outcomes(spec: Spec, logs: Logs, terms: list[Term]) -> dict[str, pl.Expr]:
    """What is watched on untreated rows: primary and guardrail means, and numeric state."""
    if not _has_windows(spec, logs):
        return {}
    found = {}
    for term in terms:
        metric = spec.metrics.get(term.name)
        if metric is not None and metric.role in ("primary", "guardrail") and _is_row_mean(metric):
            found[term.name] = term.num
    for name in logs.columns.get("state", ()):
        if logs.dtype(name).is_numeric():
            found[STATE + name] = pl.col(name).cast(pl.Float64)
    return found


def batch_column(spec: Spec, logs: Logs) -> str | None:
    """The column that names the batch a request ran in."""
    if spec.attribution is None or spec.attribution.columns is None:
        return None
    name = spec.attribution.columns.batch
    return name if name in logs.source.schema else None


def unit_of_randomization(evidence: Evidence) -> Check:
    """Units randomized one by one although they share what the policy changes."""
    name, unit = "unit_of_randomization", evidence.sample.unit
    if not evidence.unit_level:
        return Check(name, "spillover", "skip", f"{unit}s are randomized, which hold the shared pool together")
    if not evidence.spec.design.shared_state:
        message = "the spec states that the policy changes nothing that other traffic uses (design.shared_state)"
        return Check(name, "spillover", "pass", message)
    message = (
        "the policy changes a queue, cache or fleet that both arms use, and "
        f"{unit}s are randomized one by one: control waits in the queue that treated traffic fills"
    )
    return Check(name, "spillover", "fail", message, action="stronger_design")


def mixed_batches(evidence: Evidence) -> Check:
    """Batches that hold both arms: direct evidence of shared state."""
    name = "mixed_batches"
    if BATCHES not in evidence.tables:
        return Check(name, "spillover", "skip", "no batch column (attribution.columns.batch)")
    frame = evidence.tables[BATCHES]
    if frame.is_empty():
        return Check(name, "spillover", "skip", "no kept row names its batch")
    mixed = int((frame["least"] != frame["most"]).sum())
    value = share(mixed, len(frame))
    limit = threshold(evidence.spec, name, SHARE_TO_FAIL)
    message = f"{mixed:,} of {len(frame):,} batches mix arms ({percent(value)})"
    if value <= limit:
        return Check(name, "spillover", "pass", message, value=value, threshold=limit)
    if evidence.unit_level and evidence.spec.design.shared_state:
        message += ": the arms share decode steps"
        return Check(name, "spillover", "fail", message, value=value, threshold=limit, action="stronger_design")
    return Check(name, "spillover", "warn", message, value=value, threshold=limit)


def untreated_outcomes(evidence: Evidence) -> Check:
    """Do untreated requests fare differently where more of their neighbours are treated?

    Outcomes of requests that were not assigned to treatment, as means by unit, cluster and window, are regressed on the
    share of the *other* units' eligible requests there that were assigned, with effects of the unit (apart for its
    eligible and ineligible requests), of cluster × hour of day and of cluster × day, and the others' traffic. A unit
    is so compared with itself: who is untreated, and how busy it is, cannot pass for spillover. Errors are clustered by
    cluster and day (CR2); p-values are Bonferroni-adjusted over outcomes. In a switchback whose clusters switch apart,
    control cells are held against the share of the other clusters that are in treatment in the same block.
    """
    name = "untreated_outcomes"
    limit = threshold(evidence.spec, name, 0.01)
    if isinstance(evidence.sample, Blocks):
        return _between_clusters(evidence, evidence.sample, limit)
    if not evidence.unit_level:
        message = "whole clusters are assigned: the share does not vary within a cluster"
        return Check(name, "spillover", "skip", message)
    if WINDOWS not in evidence.tables:
        return Check(name, "spillover", "skip", "needs the roles 'time' and 'cluster'")
    cells = _cells(evidence)
    watched = [c.removesuffix("|num") for c in cells.columns if c.endswith("|num")]
    measured = {outcome: _slope(cells, outcome, limit / len(watched)) for outcome in watched}
    return _judged(evidence, measured, limit, "neighbours treated, untreated")


def _between_clusters(evidence: Evidence, sample: Blocks, limit: float) -> Check:
    """Of clusters that switch apart: control's outcome on the share of the other clusters in treatment."""
    name = "untreated_outcomes"
    if sample.together or not evidence.logs.has("cluster"):
        message = "all that shares a block switches together: no cluster is left untreated beside a treated one"
        return Check(name, "spillover", "skip", message)
    terms = between_clusters.watched(evidence)
    measured = {t.name: between_clusters.slope(evidence, sample, t, limit / len(terms)) for t in terms}
    return _judged(evidence, measured, limit, "other clusters treated, control's")


def _judged(evidence: Evidence, measured: Mapping[str, Slope | str], limit: float, of_whom: str) -> Check:
    """The check's answer from the slope of every outcome that is watched."""
    name, watched = "untreated_outcomes", list(measured)
    slopes = [s for s in measured.values() if isinstance(s, Slope)]
    if not slopes:
        reasons = "; ".join(f"{outcome}: {why}" for outcome, why in measured.items())
        return Check(name, "spillover", "skip", reasons or "no outcome to watch")
    slopes = [replace(s, p_value=min(1.0, s.p_value * len(watched))) for s in slopes]
    details = {name: [asdict(s) for s in slopes]}
    worst = min(slopes, key=lambda s: s.p_value)
    said = (
        f"from no to all {of_whom} {worst.outcome} changes by {worst.estimate:+.3g} "
        f"(mean {worst.mean:.3g}, std. error {worst.std_error:.2g}, p = {worst.p_value:.2g} after {len(watched)} tests)"
    )
    test = (worst.estimate / worst.std_error, worst.p_value)
    if worst.p_value < limit:
        return Check(name, "spillover", "fail", said, *test, worst.p_value, limit, "stronger_design", details)
    metrics = [o for o in watched if o in evidence.spec.metrics] or watched
    blind = [o for o in metrics if not _could_see(evidence.spec, measured[o])]
    if blind:
        what = ", ".join(_blind_words(evidence.spec, o, measured[o]) for o in blind)
        message = f"the assigned share varies too little to see an effect of the margin's size on {what}"
        return Check(name, "spillover", "skip", message, *test, worst.p_value, limit, None, details)
    return Check(name, "spillover", "pass", said, *test, worst.p_value, limit, None, details)


def _cells(evidence: Evidence) -> pl.DataFrame:
    """Bystanders' cells with the assigned share and the traffic of the others in their cluster and window."""
    cells = evidence.tables[BYSTANDERS]
    place = ["cluster", "window"]
    unit = "unit" if "unit" in cells.columns else None
    if unit:
        own = [pl.col(c).sum().over(*place, unit).alias(f"own {c}") for c in ("n", "eligible")]
    else:  # every row is a unit: the mean over rows, each without itself
        own = [pl.lit(1, dtype=pl.Int64).alias("own n"), pl.col("eligible row").cast(pl.Int64).alias("own eligible")]
    around = evidence.tables[WINDOWS].rename({"n": "all", "eligible": "all eligible"})
    cells = cells.with_columns(own).join(around, on=place, how="inner", maintain_order="left")
    cells = cells.with_columns(
        (pl.col("all eligible") - pl.col("own eligible")).alias("others eligible"),
        (pl.col("all") - pl.col("own n")).alias("others"),
    ).filter((pl.col("others eligible") > 0) & (pl.col("others") > 0))
    hour, day = timedelta(hours=1) // WINDOW, timedelta(days=1) // WINDOW
    who = pl.struct("unit", "eligible row") if unit else pl.col("eligible row")
    return cells.with_columns(
        (pl.col("assigned") / pl.col("others eligible")).alias("share"),
        pl.col("others").log().alias("traffic"),
        who.rank("dense").alias("who"),
        pl.struct("cluster", pl.col("window") % day // hour).rank("dense").alias("at hour"),
        pl.struct("cluster", pl.col("window") // day).rank("dense").alias("on day"),
    )


def _slope(cells: pl.DataFrame, outcome: str, level: float) -> Slope | str:
    """Slope on the others' assigned share; or why there is none."""
    mine = cells.filter(pl.col(f"{outcome}|n") > 0)
    if len(mine) < FEWEST_CELLS:
        return "too few windows with untreated requests"
    y = (mine[f"{outcome}|num"] / mine[f"{outcome}|n"]).to_numpy()
    mean = float(mine[f"{outcome}|num"].sum()) / float(mine[f"{outcome}|n"].sum())
    if np.ptp(y) <= EMPTY * max(abs(mean), 1.0):
        return "does not vary"
    weights = None if "unit" in mine.columns else mine[f"{outcome}|n"].to_numpy().astype(float)
    traffic = mine["traffic"].to_numpy()
    columns = [mine["share"].to_numpy(), y, traffic, (traffic - traffic.mean()) ** 2]
    codes = [_codes(mine[c]) for c in ("who", "at hour", "on day")]
    try:
        rest = sweep(np.column_stack(columns), codes, weights)
        if rest[:, 0].std() < 0.005:
            return "the assigned share hardly varies"
        x = rest[:, [0, *(j for j in (2, 3) if rest[:, j].std() > 1e-6)]]
        estimate, se, df = ols.fit(x, rest[:, 1], weights, codes[2]).contrast(np.eye(x.shape[1])[0])
        p = two_sided_p(estimate / se, df)
    except (EstimationError, ZeroDivisionError) as error:
        return str(error)
    return Slope(outcome, estimate, se, p, mean, minimum_detectable_effect(se, df, level), len(mine))


def _codes(levels: pl.Series) -> np.ndarray:
    return levels.rank("dense").cast(pl.Int64).to_numpy() - 1


def _could_see(spec: Spec, slope: Slope | str) -> bool:
    return isinstance(slope, Slope) and slope.detectable <= _size_to_see(spec, slope.outcome, slope.mean)


def _blind_words(spec: Spec, outcome: str, slope: Slope | str) -> str:
    if isinstance(slope, str):
        return f"{outcome} ({slope})"
    return f"{outcome} (it would see {slope.detectable:.2g}, the size is {_size_to_see(spec, outcome, slope.mean):.2g})"


def _size_to_see(spec: Spec, outcome: str, mean: float) -> float:
    metric = spec.metrics.get(outcome)
    effect = None if metric is None else metric.margin or metric.minimum_effect
    if effect is None:
        return DEFAULT_EFFECT * abs(mean)
    return effect.value * abs(mean) if effect.relative else effect.value


def _is_row_mean(metric: Metric) -> bool:
    return metric.quantile is None and metric.numerator is None and metric.per is None and metric.on is None


def _has_windows(spec: Spec, logs: Logs) -> bool:
    return spec.design.kind in UNIT_LEVEL and logs.has("time") and logs.has("cluster")


def _by_unit(spec: Spec, logs: Logs) -> bool:
    """Whether rows of one unit belong together; where requests are randomized, the share is a coin's alone."""
    return spec.design.kind == "user_rct" and logs.has("unit")
