"""The line from a spec to a plan: past logs or stated moments, designs, carryover, recommendation, simulation, file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from estimators.inference import EstimationError
from readout import spec as specs
from readout.errors import SpecError
from readout.memo.write import write
from readout.planning.ask import Ask, Target, ask_of, target_of
from readout.planning.assign import Assignment, assignment
from readout.planning.carryover import Carryover, carryover
from readout.planning.designs import DesignPlan, ErrorOf, sight
from readout.planning.errors import PastErrors, cluster_values
from readout.planning.past import PLANNED, Past, read_past
from readout.planning.recommend import Recommendation, candidates, recommend, require_own, roles_of, washout_of
from readout.planning.series import Floats, Series, row_variance, unit_days
from readout.planning.simulate import Simulation, simulate
from readout.planning.stated import StatedErrors
from readout.spec.model import Spec

KINDS = ("user_rct", "request_rct", "cluster_rct", "switchback")
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class PlanReport:
    """Everything that a plan says; ``plan.md``, ``plan.json`` and the terminal all read it."""

    name: str
    question: str
    spec_sha256: str
    readout_version: str
    seed: int
    as_of: str
    own_kind: str
    shared_state: bool
    past: Mapping[str, Any] | None
    ask: Ask
    washout: timedelta
    washout_why: str
    carryover: tuple[Carryover, ...]
    designs: tuple[DesignPlan, ...]
    left_out: Mapping[str, str]
    left_out_metrics: Mapping[str, str]
    recommended: Recommendation
    simulations: tuple[Simulation, ...]
    assignment: Assignment
    notes: tuple[str, ...]


def plan(
    spec_path: Path,
    *,
    overrides: Sequence[str] = (),
    out: Path = Path("memos"),
    as_of: datetime | None = None,
    seed: int | None = None,
    progress: Say = lambda _: None,
) -> tuple[PlanReport, Path]:
    """From a spec to a written plan.

    Args:
        spec_path: The YAML file of the coming experiment; its logs are past ones.
        overrides: ``dotted.key=value`` entries of ``--set``.
        out: Folder under which ``<name>/<as-of date>/`` is written.
        as_of: End of ``last:`` windows; None: now.
        seed: Of the assignment and the simulation; None: 0.
        progress: Called with a word on what happens next.

    Returns:
        The plan and the folder it was written to.

    Raises:
        SpecError: The command line or spec is wrong.
        LogError: The logs cannot support it.
    """
    from readout.planning import document

    spec = specs.load(spec_path, overrides)
    if spec.design.kind not in KINDS:
        message = f"a plan is for randomized designs: {', '.join(KINDS)}"
        raise SpecError([spec.source.problem(("design", "kind"), message)])
    moment = (as_of or datetime.now(UTC)).astimezone(UTC)
    with np.errstate(over="ignore", invalid="ignore"):
        report = (_from_moments if spec.plan.moments else _from_logs)(spec, moment, seed or 0, progress)
    folder = out / spec.name / moment.date().isoformat()
    files: dict[str, bytes | str] = {"plan.md": document.markdown(report), "plan.json": document.to_json(report)}
    if report.assignment.file:
        files[report.assignment.file] = report.assignment.content
    write(folder, files, plan=True)
    return report, folder


def _from_logs(spec: Spec, as_of: datetime, seed: int, progress: Say) -> PlanReport:
    progress("reading the past logs")
    past = read_past(spec, as_of)
    ask = ask_of(spec, max(past.end or as_of, as_of))
    progress("comparing designs")
    errors = PastErrors(past, ask)
    targets, left_out_metrics = _targets(spec, past, errors, ask.whole_days)
    primaries = [t.metric for t in targets if t.role == "primary"]
    roles = roles_of(past)
    found = carryover(spec, past, ask, primaries) if "time" in roles else ()
    washout, why = washout_of(ask, found)
    grid = _grid(errors, primaries)
    designs, left_out = candidates(spec, ask, washout, roles, len(grid.clusters) if grid else 0)
    plans = [
        DesignPlan(c, tuple(sight(c, t, ask, errors) for t in targets), _bias(found, c.block, c.washout))
        for c in designs
    ]
    require_own(spec, plans, left_out)
    chosen = recommend(spec, ask, plans)
    progress("simulating the plan")
    simulations = _simulated(spec, ask, errors, plans, chosen, seed)
    values: Floats | None = cluster_values(grid) if grid else None
    clusters = grid.clusters if grid else ()
    drawn = assignment(spec, ask, chosen.plan.candidate, clusters, values, seed)
    said = _past(past, clusters)
    notes = _notes(spec, ask, past, chosen.plan)
    return _report(
        spec, as_of, seed, ask, (washout, why), found, plans, (left_out, left_out_metrics), chosen, simulations, drawn,
        said, notes,
    )  # fmt: skip


def _from_moments(spec: Spec, as_of: datetime, seed: int, progress: Say) -> PlanReport:
    progress("comparing designs")
    ask = ask_of(spec, as_of)
    names = [m.name for m in spec.metrics.values() if m.role in PLANNED]
    stated = spec.plan.moments
    left_out_metrics = {name: "plan.moments does not state it" for name in names if name not in stated}
    targets = [target_of(spec, name, stated[name].mean) for name in names if name in stated]
    if not any(t.role == "primary" for t in targets):
        message = "none of the primary metrics is stated"
        raise SpecError([spec.source.problem(("plan", "moments"), message, "give its mean, std_dev, requests_per_day")])
    first = stated[next(t.metric for t in targets if t.role == "primary")]
    roles = ["unit"] * (first.units is not None) + ["cluster"] * (first.clusters is not None) + ["time"]
    found = (Carryover("none", reason="there are no past logs"),)
    washout, why = washout_of(ask, found)
    designs, left_out = candidates(spec, ask, washout, roles, first.clusters or 0)
    errors: ErrorOf = StatedErrors(spec, ask)
    designs = [c for c in designs if not c.pairs]
    plans = [DesignPlan(c, tuple(sight(c, t, ask, errors) for t in targets)) for c in designs]
    require_own(spec, plans, left_out)
    chosen = recommend(spec, ask, plans)
    clusters = tuple(f"cluster {i + 1}" for i in range(first.clusters or 0))
    drawn = assignment(spec, ask, chosen.plan.candidate, clusters, None, seed)
    notes = ["from stated moments: nothing was read, measured or simulated"]
    if chosen.plan.candidate.unit == "cluster-block":
        notes.append("the schedule names its clusters by number: put their names in, or plan from past logs")
    return _report(
        spec, as_of, seed, ask, (washout, why), found, plans, (left_out, left_out_metrics), chosen, (), drawn, None,
        notes,
    )  # fmt: skip


def _report(
    spec: Spec,
    as_of: datetime,
    seed: int,
    ask: Ask,
    washout: tuple[timedelta, str],
    found: tuple[Carryover, ...],
    plans: list[DesignPlan],
    left_out: tuple[dict[str, str], dict[str, str]],
    chosen: Recommendation,
    simulations: tuple[Simulation, ...],
    drawn: Assignment,
    past: Mapping[str, Any] | None,
    notes: list[str],
) -> PlanReport:
    return PlanReport(
        name=spec.name,
        question=spec.question,
        spec_sha256=spec.sha256,
        readout_version=version("policy-readout"),
        seed=seed,
        as_of=as_of.isoformat(),
        own_kind=spec.design.kind,
        shared_state=bool(spec.design.shared_state),
        past=past,
        ask=ask,
        washout=washout[0],
        washout_why=washout[1],
        carryover=found,
        designs=tuple(plans),
        left_out=left_out[0],
        left_out_metrics=left_out[1],
        recommended=chosen,
        simulations=simulations,
        assignment=drawn,
        notes=tuple(notes),
    )


def _targets(spec: Spec, past: Past, errors: PastErrors, days: int) -> tuple[list[Target], dict[str, str]]:
    """What is to be seen in each metric, primaries first, and why some are not planned for."""
    left_out = dict(past.left_out)
    targets = []
    for name in past.terms:
        try:
            targets.append(target_of(spec, name, _value(past, errors, name, days)))
        except EstimationError as error:
            left_out[name] = str(error)
    for target in [t for t in targets if t.role == "guardrail" and t.size is None]:
        targets.remove(target)
        left_out[target.metric] = "a guardrail without a margin has nothing to hold to"
    if not any(t.role == "primary" for t in targets):
        names = [m.name for m in spec.metrics.values() if m.role == "primary"]
        raise SpecError([spec.source.problem(("metrics", n), f"cannot be planned for: {left_out[n]}") for n in names])
    return sorted(targets, key=lambda t: t.role != "primary"), left_out


def _value(past: Past, errors: PastErrors, name: str, days: int) -> float:
    """The metric's past value, without past arms' effect where it can be taken out."""
    if past.terms[name].per_unit:
        units = unit_days(past, name)
        num, _ = units.window(min(days, units.days))
        return float(num.mean())
    try:
        return errors.series(name).value
    except EstimationError:
        return row_variance(past, name)[2]


def _grid(errors: PastErrors, names: Sequence[str]) -> Series | None:
    for name in names:
        try:
            return errors.series(name)
        except EstimationError:
            continue
    return None


def _bias(found: Sequence[Carryover], block: timedelta | None, washout: timedelta) -> float | None:
    """Of the first primary, whose carryover stands first where it was measured."""
    return None if block is None or not found else found[0].bias(block, washout)


def _simulated(
    spec: Spec, ask: Ask, errors: PastErrors, plans: list[DesignPlan], chosen: Recommendation, seed: int
) -> tuple[Simulation, ...]:
    """The recommended design for every primary."""
    if not spec.plan.simulations:
        return ()
    return tuple(
        simulate(errors, chosen.plan.candidate, s, ask, spec.plan.simulations, seed)
        for s in chosen.plan.sights
        if s.target.role == "primary" and s.detectable is not None
    )


def _past(past: Past, clusters: tuple[str, ...]) -> dict[str, Any]:
    return {
        "rows": {"read": past.rows.read, "kept": past.rows.kept, "dropped": dict(past.rows.dropped)},
        "start": past.start,
        "end": past.end,
        "days": past.days,
        "clusters": len(clusters),
        "arms": list(past.labels),
        "columns": past.logs.columns,
        "mapped_unasked": list(past.logs.mapped_unasked),
    }


def _notes(spec: Spec, ask: Ask, past: Past, chosen: DesignPlan) -> list[str]:
    notes = []
    if past.days and past.days < ask.days - 0.5:
        notes.append(
            f"the past log covers {past.days:.3g} days and the plan {ask.days:g}: what it says of longer spans is "
            "extrapolated"
        )
    if not past.days:
        notes.append("the past log has no times: it is taken to be as long as the plan")
    if past.keep_units > 1:
        notes.append(f"units are judged by one in {past.keep_units}, chosen by a hash of their id")
    if past.labels:
        notes.append("the past log holds arms; their differences in level were taken out")
    if len(ask.arms) > 2:
        notes.append("power is that of the treatment with the smallest share, alone; multiplicity is not counted")
    if ask.traffic < 1.0 and chosen.candidate.kind in ("cluster_rct", "switchback"):
        notes.append("traffic is of units and requests: clusters and blocks are enrolled whole")
    planned = {"cluster_rct": "cluster_means", "switchback": "block_regression"}.get(chosen.candidate.kind)
    if planned and chosen.candidate.kind == spec.design.kind and spec.estimator.method != planned:
        notes.append(f"errors are those of {planned}, not of {spec.estimator.method}")
    if past.absent:
        notes.append(f"roles that the past log does not have: {', '.join(past.absent)}")
    if spec.estimator.method in ("cuped", "regression_adjusted"):
        notes.append(f"planned without the covariates of {spec.estimator.method}, which can only make it surer")
    if past.logs.mapped_unasked:
        notes.append("mapped by name: " + ", ".join(past.logs.mapped_unasked))
    return notes
