"""Do the arms share what the treatment changes?"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from datetime import timedelta

import numpy as np
import polars as pl

from estimators import ols
from estimators.inference import EstimationError, two_sided_p
from readout.checks.base import percent, share, threshold
from readout.evidence import Evidence, count
from readout.logs import Logs
from readout.logs.frame import NO_ARM, REASONS
from readout.reduce import Table
from readout.results import Check
from readout.spec.metrics import Metric
from readout.spec.model import Spec
from readout.terms import UNIT_LEVEL, Term

WINDOWS, BATCHES = "windows", "batches"
WINDOW = timedelta(minutes=5)
SHARE_TO_FAIL = 0.05
# The size of effect that has to be seen where a metric states neither margin nor minimum effect.
DEFAULT_EFFECT = 0.05
# Multiple of the standard error that a test at 5 % sees with a power of 80 %.
DETECTABLE = 2.8
EMPTY = 1e-12


@dataclass(frozen=True, slots=True)
class Slope:
    """Change of an untreated outcome from no to all neighbours treated; ``seen``: the margin's size could be seen."""

    outcome: str
    estimate: float
    std_error: float
    p_value: float
    mean: float
    seen: bool


def tables(spec: Spec, logs: Logs, outcomes: dict[str, pl.Expr]) -> list[Table]:
    """Untreated outcomes and the assigned share by cluster and window; batches by the arms in them."""
    found = []
    if _has_windows(spec, logs):
        # Only rows that were not assigned to treatment: who is left untreated in a treated arm is a selection.
        bystander = pl.col("@arm_code").fill_null(0) == 0
        if logs.has("executed"):
            bystander &= ~pl.col("@executed").is_in(list(spec.design.treatment)).fill_null(False)
        eligible = pl.col("@arm_code").is_not_null() & (
            pl.col("@eligible").fill_null(False) if logs.has("eligible") else True
        )
        sums: dict[str, pl.Expr] = {
            "eligible": count(eligible),
            "assigned": count(eligible & (pl.col("@arm_code") > 0)),
        }
        for name, value in outcomes.items():
            mine = pl.when(bystander).then(value)
            sums |= {f"{name}|num": mine, f"{name}|n": count(mine.is_not_null())}
        keys = {
            "cluster": _cluster(logs),
            "window": pl.col("@time").dt.epoch("us") // (WINDOW // timedelta(microseconds=1)),
        }
        found.append(Table(WINDOWS, keys, _in_system(), sums=sums))
    if (batch := batch_column(spec, logs)) is not None:
        arm = pl.col("@arm_code")
        where = pl.col("@drop").is_null() & pl.col(batch).is_not_null()
        found.append(
            Table(BATCHES, {"batch": pl.col(batch).hash(0)}, where, minima={"least": arm}, maxima={"most": arm})
        )
    return found


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
            found[f"state {name}"] = pl.col(name).cast(pl.Float64)
    return found


def batch_column(spec: Spec, logs: Logs) -> str | None:
    """The column that names the batch a request ran in."""
    if spec.attribution is None or spec.attribution.columns is None:
        return None
    name = spec.attribution.columns.batch
    return name if name in logs.source.schema else None


def unit_of_randomization(evidence: Evidence) -> Check:
    """Units randomized one by one although they share what the policy changes."""
    if not evidence.unit_level:
        return Check(
            "unit_of_randomization",
            "spillover",
            "pass",
            f"{evidence.sample.unit}s are randomized, which hold the shared pool together",
        )
    if not evidence.spec.design.shared_state:
        return Check(
            "unit_of_randomization",
            "spillover",
            "pass",
            "the spec states that the policy changes nothing that other traffic uses",
        )
    message = (
        "the policy changes a queue, cache or fleet that both arms use, and "
        f"{evidence.sample.unit}s are randomized one by one: control waits in the queue that treated traffic fills"
    )
    return Check("unit_of_randomization", "spillover", "fail", message, action="stronger_design")


def mixed_batches(evidence: Evidence) -> Check:
    """Batches that hold both arms: direct evidence of shared state."""
    if BATCHES not in evidence.tables:
        return Check("mixed_batches", "spillover", "skip", "no batch column (attribution.columns.batch)")
    frame = evidence.tables[BATCHES]
    mixed = int((frame["least"] != frame["most"]).sum())
    value = share(mixed, len(frame))
    limit = threshold(evidence.spec, "mixed_batches", SHARE_TO_FAIL)
    message = f"{mixed:,} of {len(frame):,} batches mix arms ({percent(value)})"
    if value <= limit:
        return Check("mixed_batches", "spillover", "pass", message, value=value, threshold=limit)
    if evidence.unit_level and evidence.spec.design.shared_state:
        return Check(
            "mixed_batches",
            "spillover",
            "fail",
            message + ": the arms share decode steps",
            value=value,
            threshold=limit,
            action="stronger_design",
        )
    return Check("mixed_batches", "spillover", "warn", message, value=value, threshold=limit)


def untreated_outcomes(evidence: Evidence) -> Check:
    """Do untreated requests fare differently where more of their neighbours are treated?

    Control's outcome by cluster and window is regressed on the assigned share there, with cluster and hour effects and
    the window's traffic; errors are clustered by cluster and day (CR2), p-values are Bonferroni-adjusted over outcomes.
    """
    name = "untreated_outcomes"
    if not evidence.unit_level:
        return Check(
            name, "spillover", "skip", "whole blocks are assigned: the share does not vary within a cluster and block"
        )
    if WINDOWS not in evidence.tables:
        return Check(name, "spillover", "skip", "needs the roles 'time' and 'cluster'")
    frame = evidence.tables[WINDOWS].filter(pl.col("eligible") > 0)
    watched = [c.removesuffix("|num") for c in frame.columns if c.endswith("|num")]
    limit = threshold(evidence.spec, name, 0.01)
    measured = {outcome: _slope(evidence.spec, frame, outcome) for outcome in watched}
    slopes = [s for s in measured.values() if isinstance(s, Slope)]
    if not slopes:
        reasons = "; ".join(f"{outcome}: {why}" for outcome, why in measured.items())
        return Check(name, "spillover", "skip", reasons or "no outcome to watch")
    slopes = [replace(s, p_value=min(1.0, s.p_value * len(slopes))) for s in slopes]
    details = {name: [{k: v for k, v in asdict(s).items() if k != "seen"} for s in slopes]}
    worst = min(slopes, key=lambda s: s.p_value)
    said = (
        f"from no to all neighbours treated, untreated {worst.outcome} changes by {worst.estimate:+.3g} "
        f"(mean {worst.mean:.3g}, std. error {worst.std_error:.2g}, p = {worst.p_value:.2g} after {len(slopes)} tests)"
    )
    test = (worst.estimate / worst.std_error, worst.p_value)
    if worst.p_value < limit:
        return Check(name, "spillover", "fail", said, *test, worst.estimate, limit, "stronger_design", details)
    blind = [s.outcome for s in slopes if not s.seen]
    if blind:
        message = f"the assigned share varies too little to see an effect of the margin's size on {', '.join(blind)}"
        return Check(name, "spillover", "skip", message, *test, None, limit, None, details)
    return Check(name, "spillover", "pass", said, *test, worst.estimate, limit, None, details)


def _slope(spec: Spec, frame: pl.DataFrame, outcome: str) -> Slope | str:
    """Slope on the assigned share; or why there is none."""
    mine = frame.filter(pl.col(f"{outcome}|n") > 0)
    if len(mine) < 50:
        return "too few windows"
    n = mine[f"{outcome}|n"].to_numpy().astype(float)
    y = mine[f"{outcome}|num"].to_numpy().astype(float) / n
    fraction = (mine["assigned"] / mine["eligible"]).to_numpy()
    traffic = np.log(mine["n"].to_numpy())
    cluster = mine["cluster"].rank("dense").cast(pl.Int64).to_numpy() - 1
    windows = mine["window"].to_numpy()
    per_day = timedelta(days=1) // WINDOW
    hour, day = windows % per_day // (per_day // 24), windows // per_day
    columns = [fraction, np.ones(len(y)), traffic]
    for codes in (cluster, hour):
        columns += [(codes == level).astype(float) for level in np.unique(codes)[1:]]
    mean = float((n * y).sum() / n.sum())
    if np.ptp(y) <= EMPTY * max(abs(mean), 1.0):
        return "does not vary"
    if fraction.std() < 0.005:
        return "the assigned share hardly varies"
    if traffic.std() < EMPTY:
        columns.pop(2)
    x = np.column_stack(columns)
    try:
        fit = ols.fit(x, y, n, cluster * (day.max() + 1) + day)
        estimate, se, df = fit.contrast(np.eye(x.shape[1])[0])
        p = two_sided_p(estimate / se, df)
    except (EstimationError, ZeroDivisionError) as error:
        return str(error)
    return Slope(outcome, estimate, se, p, mean, se * DETECTABLE <= _size_to_see(spec, outcome, mean))


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


def _cluster(logs: Logs) -> pl.Expr:
    return pl.col("@cluster").cast(pl.String).fill_null("")


def _in_system() -> pl.Expr:
    """Rows of the experiment, and those of the window that were never assigned."""
    return pl.col("@drop").is_null() | (pl.col("@drop") == REASONS.index(NO_ARM))
