"""The line from a spec to a readout: load, scan, reduce once, check, estimate, decide, write."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from readout import beside, capacity, checks, described, economics, energy, events, long_run, looks, span, surrogates
from readout import spec as specs
from readout.checks import assignment, balance, between_blocks, execution, logging, rollback, spillover
from readout.covariates import own_terms, with_covariates
from readout.decide import decide
from readout.engines import require_engine
from readout.errors import LogError, SpecError
from readout.estimate import metric_results
from readout.evidence import ROWS, Evidence, count, require_rows, rows_table
from readout.exposure import Observed, observe
from readout.faults import reading
from readout.identification import assumptions
from readout.logs import Logs, find_source, open_logs
from readout.memo import document, markdown
from readout.memo import figures as drawings
from readout.memo.write import write
from readout.reduce import run_pass
from readout.results import BlockPoint, Check, Readout, Rows
from readout.samples import Blocks, Clusters, Sample, before, sample_of
from readout.samples.base import Explains, NotDrawn
from readout.segments import asked, groups
from readout.segments.reading import read_segments
from readout.spec.available import require_available
from readout.spec.designs import RANDOMIZED
from readout.spec.model import Spec
from readout.terms import Term, metric_terms

Say = Callable[[str], None]
LATER = "later"


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What ``readout check`` found; no effect is in it."""

    name: str
    rows: Rows
    checks: tuple[Check, ...]
    notes: tuple[str, ...]

    @property
    def failed(self) -> bool:
        """Whether any check failed."""
        return any(c.status == "fail" for c in self.checks)


def run(
    spec_path: Path,
    *,
    overrides: Sequence[str] = (),
    out: Path = Path("memos"),
    as_of: datetime | None = None,
    seed: int | None = None,
    figures: bool = True,
    engine: str = "polars",
    progress: Say = lambda _: None,
) -> tuple[Readout, Path]:
    """From a spec to a written readout.

    Args:
        spec_path: The YAML file.
        overrides: ``dotted.key=value`` entries of ``--set``.
        out: Folder under which ``<name>/<as-of date>/`` is written.
        as_of: End of ``last:`` windows; None: now.
        seed: Of everything drawn; None: 0.
        figures: Whether SVG figures are drawn (and the spec's ``report.figures`` says so too).
        engine: ``polars``.
        progress: Called with a word on what happens next.

    Returns:
        The readout and the folder it was written to.

    Raises:
        SpecError: The command line or spec is wrong, or asks for what is not available yet.
        LogError: The logs cannot support it.
    """
    require_engine(engine)
    spec = specs.load(spec_path, overrides)
    require_available(spec)
    moment = (as_of or datetime.now(UTC)).astimezone(UTC)
    drawing = figures and spec.report.figures
    beside.load(*beside.STATISTICS, *(beside.FIGURES if drawing else ()))
    progress("reading the logs")
    evidence = gather(spec, moment, seed or 0)
    progress("estimating")
    readout = assemble(spec, evidence, moment, seed or 0)
    drawn: Mapping[str, bytes] = {}
    if drawing:
        progress("drawing")
        drawn = drawings.draw(readout)
        readout = replace(readout, figures=tuple(drawn))
    folder = out / spec.name / moment.date().isoformat()
    write(folder, {"memo.md": markdown.memo(readout), "readout.json": document.to_json(readout), **drawn})
    return readout, folder


def check(
    spec_path: Path,
    *,
    overrides: Sequence[str] = (),
    as_of: datetime | None = None,
    seed: int | None = None,
    engine: str = "polars",
    progress: Say = lambda _: None,
) -> CheckReport:
    """The spec and the logs audited, without any effect.

    Raises:
        SpecError, LogError: As :func:`run`; a method that is not available yet is no error here.
    """
    require_engine(engine)
    spec = specs.load(spec_path, overrides)
    moment = (as_of or datetime.now(UTC)).astimezone(UTC)
    progress("reading the logs")
    evidence = gather(spec, moment, seed or 0)
    found = tuple(one(evidence) for one in checks.before_effects(spec.design.kind))
    return CheckReport(spec.name, evidence.rows(), found, _notes(evidence))


def gather(spec: Spec, as_of: datetime, seed: int = 0) -> Evidence:
    """One pass over the logs: everything that checks and estimates asked for; ``seed`` is of methods that draw.

    Raises:
        SpecError, LogError: As :func:`run`.
    """
    source = energy.promised(spec, find_source(spec.logs.path, spec.base))
    logs = open_logs(spec, as_of, source=source)
    metrics, attributed = metric_terms(spec, logs), None
    long_run.refuse_absent(spec, metrics, logs)
    surrogates.load(spec)
    with reading(spec, logs):
        if spec.attribution is not None:
            source, attributed = energy.attributed(spec, source, seed)
            logs = open_logs(spec, as_of, source=source)
        metrics = with_covariates(spec, logs, metrics)
        known = [*metrics, *economics.terms(spec, logs, {t.name: t for t in metrics})]
        segments = groups.find(spec, logs)
        by_segment, logs = asked.terms(spec, logs, segments, known)
        sample = sample_of(spec, logs, seed)
        observed = observe(spec, logs, sample, as_of)
        logs = observed.logs
        terms, reduced = _reduce(spec, logs, metrics, [*known, *by_segment], sample, observed, as_of)
        before.require_rows(spec, logs, reduced)
        left_out = {**sample.load(reduced), **observed.left_out(reduced)}
    evidence = Evidence(
        spec, logs, sample, {t.name: t for t in terms}, reduced, left_out,
        met=observed.met(sample, reduced), until=observed.until, groups=segments,
        attributed=attributed,
    )  # fmt: skip
    require_rows(evidence.rows(), evidence)
    _require_values(evidence, metrics)
    capacity.require_windows(evidence)
    return evidence


def _reduce(
    spec: Spec,
    logs: Logs,
    metrics: list[Term],
    known: list[Term],
    sample: Sample,
    observed: Observed,
    as_of: datetime,
) -> tuple[Sequence[Term], Mapping[str, pl.DataFrame]]:
    """What all parts ask for, united, and the pass that answers it; ``known`` are metrics, net value and what segments
    ask for."""
    terms = [*known, *(_of_drawn_arms(spec, logs) if spec.design.kind in RANDOMIZED else ())]
    # A feature may be both compared and adjusted for.
    terms += [t for t in own_terms(known) if t.name not in {one.name for one in terms}]
    _refuse_own_names(spec, terms)
    missing = {f"{t.name}|null": count(t.missing) for t in metrics if t.missing is not None}
    missing |= long_run.sums(spec, logs, metrics)
    tables = [
        rows_table(missing | _later(logs, as_of)),
        *observed.of(sample.tables(terms)),
        *observed.tables(spec),
        *span.tables(logs),
        *surrogates.tables(spec, logs),
        *logging.tables(spec, logs),
        *assignment.tables(spec, logs),
        *execution.tables(spec, logs),
        *(observed.of(balance.label_tables(spec, logs, sample)) if spec.design.kind in RANDOMIZED else ()),
        *spillover.tables(spec, logs, spillover.outcomes(spec, logs, metrics)),
        *rollback.tables(spec, logs, metrics),
        *observed.of(capacity.tables(spec, logs, sample, terms)),
        *events.tables(spec, logs),
        *observed.of(energy.tables(spec, logs, sample, {t.name: t for t in metrics})),
        *observed.of(between_blocks.tables(spec, sample, metrics)),
    ]
    rows, one_scan = max(logs.source.rows, 1), not logs.source.local
    reduced = run_pass(logs.frame, tables, rows, one_scan=one_scan)
    if again := observed.of(sample.again(reduced)):
        reduced |= run_pass(logs.frame, again, rows, one_scan=one_scan)
    return terms, reduced


def _of_drawn_arms(spec: Spec, logs: Logs) -> list[Term]:
    """What drawn arms must not differ in, and how they were carried out."""
    return [*assignment.terms(spec, logs), *execution.terms(spec, logs), *balance.terms(spec, logs)]


def _later(logs: Logs, as_of: datetime) -> dict[str, pl.Expr]:
    """Rows from after the time that the memo is read as of."""
    if not logs.has("time") or logs.dtype(str(logs.columns["time"])).is_integer():
        return {}
    return {LATER: count(pl.col("@time") > as_of)}


def assemble(spec: Spec, evidence: Evidence, as_of: datetime, seed: int) -> Readout:
    """Estimates, checks and the decision, as one readout."""
    # What overflows ends as a number that is not finite, and no estimator lets that through.
    with np.errstate(over="ignore", invalid="ignore"):
        evidence = replace(evidence, metrics=metric_results(evidence))
        evidence = replace(evidence, segments=read_segments(evidence))
        found = tuple(one(evidence) for one in checks.of(spec.design.kind))
        tail = capacity.summary(evidence)
    decision = decide(evidence, found)
    return Readout(
        name=spec.name,
        question=spec.question,
        counterfactual=spec.counterfactual,
        failure_mode=spec.decision.failure_mode,
        mitigation=spec.decision.mitigation,
        monitor=spec.decision.monitor,
        spec_sha256=spec.sha256,
        readout_version=version("policy-readout"),
        seed=seed,
        as_of=as_of.astimezone(UTC).isoformat(),
        alpha=spec.decision.alpha,
        window=span.window(evidence),
        rows=evidence.rows(),
        columns=evidence.logs.columns,
        mapped_unasked=evidence.logs.mapped_unasked,
        design=described.design(evidence),
        assignment=described.assignment(evidence),
        decision=decision,
        checks=found,
        metrics=evidence.metrics,
        assumptions=assumptions(spec, found),
        diagnostics=_diagnostics(evidence, found),
        economics=economics.summary(evidence),
        capacity=tail,
        surrogate=surrogates.summary(evidence, decision.treatment),
        attribution=energy.summary(evidence),
        blocks=_blocks(evidence),
        segments=evidence.segments,
        notes=(*_notes(evidence), *energy.notes(evidence)),
    )


def _refuse_own_names(spec: Spec, terms: Sequence[Term]) -> None:
    """Readout's own quantities go by names that no metric may bear.

    Raises:
        SpecError: All such metrics.
    """
    own = [t.name for t in terms if t.name.startswith("@")]
    if taken := [name for name in spec.metrics if name in own and own.count(name) > 1]:
        hint = "another name, without the @"
        message = "the name of a quantity that readout computes itself"
        raise SpecError([spec.source.problem(("metrics", name), message, hint, on_key=True) for name in taken])


def _require_values(evidence: Evidence, metrics: Sequence[Term]) -> None:
    """A metric that is null wherever it should count supports no readout.

    Raises:
        LogError: All such metrics.
    """
    problems = []
    kept = evidence.total("n")
    for term in metrics:
        nulls = evidence.total(f"{term.name}|null")
        if nulls == kept and evidence.spec.metrics[term.name].role != long_run.ROLE:
            column = evidence.spec.metrics[term.name].column or "its columns"
            message = f"each of the {kept:,} kept rows is null in {column!r}; expected numbers"
            problems.append(evidence.spec.source.problem(("metrics", term.name), message, on_key=True))
    if problems:
        raise LogError(problems)


def _diagnostics(evidence: Evidence, found: Sequence[Check]) -> dict[str, Any]:
    diagnostics = {name: value for one in found for name, value in one.details.items() if name != "by_arm"}
    if evidence.segments.heterogeneity:
        diagnostics["heterogeneity"] = [asdict(test) for test in evidence.segments.heterogeneity]
    if evidence.segments.allocation:
        diagnostics["allocation"] = list(evidence.segments.allocation)
    if hit := events.summary(evidence):
        diagnostics["events"] = hit
    if isinstance(evidence.sample, Blocks) and (left := evidence.sample.washed_out()):
        diagnostics["washout"] = left
    if isinstance(evidence.sample, Explains):
        first = next(m.name for m in evidence.spec.metrics.values() if m.role == "primary")
        effects = {arm: one for arm in evidence.treatments if (one := evidence.effect(first, arm)) is not None}
        diagnostics |= evidence.sample.shown(evidence.terms[first], effects)
    for name, metric in evidence.spec.metrics.items():
        shown = name in evidence.terms and (metric.role == "primary" or evidence.terms[name].covariates)
        for arm in evidence.treatments if shown else ():
            effect = evidence.effect(name, arm)
            if effect is not None and effect.diagnostics:
                own = {k: v for k, v in effect.diagnostics.items() if diagnostics.get(k) is not v}
                diagnostics[f"{name} ({evidence.arms[arm]})"] = own
    return diagnostics


def _blocks(evidence: Evidence) -> tuple[BlockPoint, ...]:
    primary = next((m for m in evidence.spec.metrics.values() if m.role == "primary" and m.quantile is None), None)
    if primary is None or not isinstance(evidence.sample, Blocks):
        return ()
    return evidence.sample.points(evidence.terms[primary.name])


def _notes(evidence: Evidence) -> tuple[str, ...]:
    notes = [f"rows left out ({reason}): {n:,}" for reason, n in evidence.rows().dropped.items()]
    sample = evidence.sample
    if isinstance(sample, Clusters) and sample.weights == "units" and evidence.spec.economics is not None:
        notes.append("net value against control is that of the average cluster; sums by arm are over rows")
    if LATER in evidence.tables[ROWS].columns and (n := evidence.total(LATER)):
        notes.append(f"{n:,} kept rows are from after the time that this is read as of; logs.end leaves such rows out")
    if isinstance(sample, NotDrawn):
        notes += sample.remarks()
    notes += [*looks.notes(evidence), *surrogates.notes(evidence.spec)]
    if evidence.logs.mapped_unasked:
        notes.append("mapped by name: " + ", ".join(evidence.logs.mapped_unasked))
    return (*notes, *events.notes(evidence))
