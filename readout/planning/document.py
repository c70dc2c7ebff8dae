"""``plan.json`` and ``plan.md``."""

# Without "from __future__ import annotations": that would bind the name of a public function here.

from typing import Any

from readout.memo.document import dump
from readout.memo.escape import markdown as escape
from readout.memo.escape import name as code
from readout.memo.escape import workflow_message, workflow_property
from readout.memo.numbers import count, number, percent
from readout.memo.tables import bullets, section, table
from readout.planning import words
from readout.planning.carryover import Carryover
from readout.planning.designs import DesignPlan, Sight, said
from readout.planning.plan import PlanReport


def to_json(report: PlanReport) -> str:
    """``plan.json``: one object of schema ``readout-plan/1``; every number is finite or null."""
    ask, drawn = report.ask, report.assignment
    return dump(
        {
            "schema": "readout-plan/1",
            "name": report.name,
            "spec_sha256": report.spec_sha256,
            "readout_version": report.readout_version,
            "seed": report.seed,
            "as_of": report.as_of,
            "past": report.past,
            "plan": {
                "start": ask.start,
                "end": ask.end,
                "days": ask.days,
                "alpha": ask.alpha,
                "power": ask.power,
                "split": ask.split,
                "traffic": ask.traffic,
                "blocks": [said(length) for length in ask.lengths],
                "own_design": report.own_kind,
                "shared_state": report.shared_state,
            },
            "recommended": {
                **_candidate(report.recommended.plan),
                "enough": report.recommended.enough,
                "reasons": report.recommended.reasons,
            },
            "designs": [_design(plan) for plan in report.designs],
            "left_out": {"designs": report.left_out, "metrics": report.left_out_metrics},
            "carryover": {
                "washout": said(report.washout),
                "why": report.washout_why,
                "found": [_carryover(found) for found in report.carryover],
            },
            "assignment": {
                "file": drawn.file or None,
                "mechanism": drawn.mechanism,
                "counts": drawn.counts,
                "balance": drawn.balance,
                "use": drawn.use,
            },
            "simulations": [
                {
                    "design": s.design,
                    "metric": s.metric,
                    "runs": s.runs,
                    "failed": s.failed,
                    "stated_power": s.stated,
                    "achieved_power": s.achieved,
                    "monte_carlo_margin": s.margin,
                    "achieved_power_at_minimum_detectable_effect": s.smallest,
                    "differs": s.differs,
                    "false_positive_rate": s.false_positives,
                    "false_positive_margin": s.false_margin,
                    "note": s.note,
                }
                for s in report.simulations
            ],
            "notes": report.notes,
        }
    )


def _candidate(plan: DesignPlan) -> dict[str, Any]:
    c = plan.candidate
    return {
        "design": c.label,
        "kind": c.kind,
        "unit": c.unit,
        "block": None if c.block is None else said(c.block),
        "washout": None if c.block is None else said(c.washout),
        "together": c.together if c.block is not None else None,
        "pairs": c.pairs,
    }


def _design(plan: DesignPlan) -> dict[str, Any]:
    return {
        **_candidate(plan),
        "valid": not plan.candidate.invalid,
        "reason": plan.candidate.invalid,
        "carryover_bias": plan.bias,
        "metrics": [_sight(seen) for seen in plan.sights],
    }


def _sight(seen: Sight) -> dict[str, Any]:
    target = seen.target
    return {
        "metric": target.metric,
        "role": target.role,
        "past_value": target.value,
        "n_control": seen.n_control,
        "n_treatment": seen.n_treatment,
        "std_error": seen.std_error,
        "df": seen.df,
        "minimum_detectable_effect": seen.detectable,
        "relative": seen.relative,
        "margin" if target.one_sided else "effect": target.size,
        "power": seen.power,
        "days_needed": seen.days,
        "reason": seen.reason,
    }


def _carryover(found: Carryover) -> dict[str, Any]:
    return {
        "source": found.source,
        "of": found.of,
        "washout": None if found.washout is None else said(found.washout),
        "past_block": None if found.past_block is None else said(found.past_block),
        "lags": [dict(zip(("lag", "estimate", "std_error", "p_value"), lag, strict=True)) for lag in found.lags],
        "after_washout": None if found.left is None else dict(zip(("estimate", "std_error"), found.left, strict=True)),
        "since_switch": [
            {
                "minutes": b.since.total_seconds() / 60,
                "until": b.until.total_seconds() / 60,
                "carryover": b.estimate,
                "ci_low": b.ci_low,
                "ci_high": b.ci_high,
            }
            for b in found.bins
        ],
        "left_after_an_hour": found.rest,
        "reason": found.reason,
    }


def markdown(report: PlanReport) -> str:
    """``plan.md``: the recommendation first, what stands behind it below."""
    parts = (
        _head(report),
        _table(report),
        _guardrails(report),
        _carried(report),
        _assigned(report),
        _simulated(report),
        _rest(report),
    )
    return "\n\n".join("\n".join(part) for part in parts if part) + "\n"


def _head(report: PlanReport) -> list[str]:
    lines = [f"# Plan: {escape(report.name)}"]
    if report.question:
        lines += ["", escape(report.question)]
    lines += ["", f"**Run: {escape(words.headline(report))}.** {escape(words.verdict(report))}", ""]
    return lines + bullets(escape(line) for line in (*report.recommended.reasons, *words.guards(report)))


def _table(report: PlanReport) -> list[str]:
    """What every design could see of each primary."""
    parts = []
    ask = report.ask
    for i, seen in enumerate(s for s in report.recommended.plan.sights if s.target.role == "primary"):
        target = seen.target
        wanted = f"power for {escape(target.said)}" if target.size is not None else "power"
        headers = ("design", "randomized", "smallest effect seen", wanted, "days needed", "")
        rows = []
        for plan in report.designs:
            one = next(s for s in plan.sights if s.target.metric == target.metric)
            shown = words.remark(report, plan) if i == 0 else plan.candidate.invalid or words.unseen(one)
            rows.append(
                (escape(plan.candidate.label), words.units(one), words.size(one.detectable, one.relative),
                 percent(one.power), words.days(one), escape(shown))
            )  # fmt: skip
        said_value = f"{code(target.metric)}: past value {number(target.value)}"
        parts.append([f"{said_value}, power {percent(ask.power)} at alpha {ask.alpha:g}, {ask.days:g} days."])
        parts.append(table(headers, rows, "lrrrrl"))
    if words.has_together(report):
        parts.append(["Together: all clusters switch at one time; for policies that act across clusters."])
    return section("## What each design could see", *parts)


def _guardrails(report: PlanReport) -> list[str]:
    rows = [
        (code(s.target.metric), escape(s.target.said), words.size(s.detectable, s.relative), percent(s.power),
         words.days(s), escape(s.reason))
        for s in report.recommended.plan.sights
        if s.target.one_sided
    ]  # fmt: skip
    if not rows:
        return []
    headers = ("guardrail", "margin", "smallest margin shown", "power to show that it holds", "days needed", "")
    lead = ["Under the recommended design, where the treatment does no harm:"]
    return section("## Guardrails", lead, table(headers, rows, "lrrrrl"))


def _carried(report: PlanReport) -> list[str]:
    if not report.carryover:
        return []
    lines = bullets(escape(words.carried(found, report)) for found in report.carryover)
    if report.recommended.plan.candidate.block is not None:
        lines += bullets([escape(words.washed(report))])
    bias = report.recommended.plan.bias
    if bias:
        lines += bullets([f"What the recommended blocks would miss of a lasting change: {number(bias, signed=True)}."])
    curve: list[str] = []
    for found in report.carryover:
        if found.bins:
            rows = [
                (f"{b.since.total_seconds() / 60:g}–{b.until.total_seconds() / 60:g}", number(b.estimate, signed=True),
                 f"[{number(b.ci_low, signed=True)}, {number(b.ci_high, signed=True)}]")
                for b in found.bins
            ]  # fmt: skip
            curve += [
                f"{code(found.of)}, effect of the arm before, by minutes since the switch (intervals hold together):",
                "",
            ]
            curve += [*table(("minutes", "carryover", "interval"), rows, "lrr"), ""]
    return section("## Carryover", lines, curve[:-1])


def _assigned(report: PlanReport) -> list[str]:
    drawn = report.assignment
    lines = []
    if drawn.file:
        arms = ", ".join(f"{count(n)} to {code(arm)}" for arm, n in drawn.counts.items())
        unit = "clusters"
        if report.recommended.plan.candidate.block is not None:
            unit = f"{report.recommended.plan.candidate.unit}s"
        how = drawn.mechanism.get("said") or drawn.mechanism["kind"]
        how = f"{escape(str(how))}, drawn from seed {report.seed}; the file records it."
        lines.append(f"`{drawn.file}`: {unit}, {arms}; {how}")
    lines.append(escape(drawn.use[:1].upper() + drawn.use[1:]) + ".")
    grid: list[str] = []
    if drawn.balance:
        parts = list(next(iter(drawn.balance.values())))
        rows = [(code(arm), *(count(counts[part]) for part in parts)) for arm, counts in drawn.balance.items()]
        grid = table(("blocks", *parts), rows, "l" + "r" * len(parts))
    return section("## Assignment", bullets(lines), grid)


def _simulated(report: PlanReport) -> list[str]:
    return section("## Simulated", bullets(escape(words.simulated(found)) for found in report.simulations))


def _rest(report: PlanReport) -> list[str]:
    lines = [escape(note) for note in report.notes]
    lines += [f"not planned for, {code(name)}: {escape(why)}" for name, why in report.left_out_metrics.items()]
    lines += [f"left out, {escape(label)}: {escape(why)}" for label, why in report.left_out.items()]
    if report.past is not None:
        rows = report.past["rows"]
        dropped = "".join(f"; {count(n)} dropped: {escape(why)}" for why, n in rows["dropped"].items())
        lines.append(f"past log: {count(rows['read'])} rows read, {count(rows['kept'])} kept{dropped}")
    lines.append(f"readout {report.readout_version}, seed {report.seed}, as of {report.as_of}")
    return section("## Notes", bullets(lines))


def annotations(report: PlanReport) -> str:
    """GitHub workflow commands: the recommendation, and what differs from what was stated."""
    level = "notice" if report.recommended.enough else "warning"
    title = workflow_property(f"Plan {report.name}")
    lines = [f"::{level} title={title}::{workflow_message(f'{words.headline(report)}. {words.verdict(report)}')}"]
    warned = [*words.guards(report)]
    warned += [words.simulated(found) for found in report.simulations if found.differs or found.too_often]
    lines += [f"::warning title={title}::{workflow_message(sentence)}" for sentence in warned]
    return "\n".join(lines)


def shown(report: PlanReport, output_format: str) -> str:
    """The plan as JSON, Markdown or annotations."""
    if output_format == "json":
        return to_json(report)
    return markdown(report) if output_format == "markdown" else annotations(report)
