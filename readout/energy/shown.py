"""What ``readout attribute`` prints: a table for a terminal, JSON, Markdown, or annotations of a CI run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from readout.energy.bias import BOTH, COMPANY, EVERYTHING, Group
from readout.energy.command import Report
from readout.energy.model import CARBON, ENERGY
from readout.energy.requests import ARM
from readout.energy.rows import COLD, RULES, rule_column
from readout.energy.summary import cold_start
from readout.memo.document import dump
from readout.memo.escape import markdown, name, terminal, workflow_message, workflow_property
from readout.memo.numbers import DASH, count, number, percent
from readout.memo.tables import bullets, section, table
from readout.text import visible

_HEADERS = ("Requests", "Wh each", "g each", "per token", "per request", "provisioned", "saved")
_LEGEND = (
    "Wh and gCO2e by request; what each rule charges the group more or less than its Shapley shares; and what a batch "
    "would save without a request, as a part of its share: the rest of the share moves onto the others."
)


def print_report(report: Report, console: Console) -> None:
    """Print the sums, the table of groups, and the biases in words; text from data is shown as text."""
    for sentence in headline(report):
        _say(console, sentence)
    console.print()
    grid = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, expand=True, collapse_padding=True)
    grid.add_column("Group", overflow="fold", ratio=1)
    for header in _HEADERS:
        grid.add_column(header, justify="right", no_wrap=True)
    before = EVERYTHING
    for group in _listed(report):
        if group.grouping != before:
            grid.add_section()
        before = group.grouping
        grid.add_row(*(Text(terminal(cell, console.encoding)) for cell in (_title(group), *_cells(group))))
    console.print(grid, highlight=False, markup=False, emoji=False)
    _say(console, _LEGEND, "dim")
    for sentence in report.sentences:
        _say(console, f"- {sentence}")
    for note in report.notes:
        _say(console, f"Note: {note}", "yellow")


def shown(report: Report, output_format: str) -> str:
    """The report as ``readout-attribution/1`` JSON, Markdown, or GitHub annotations."""
    if output_format == "json":
        return dump(document(report))
    return page(report) if output_format == "markdown" else "\n".join(_annotations(report))


def headline(report: Report) -> list[str]:
    """What was attributed, with which model, and what was left apart."""
    totals, model = report.totals, report.model
    batches = f"{count(totals.requests)} requests in {count(totals.batches)} batches"
    site, by = f"facility, PUE {model.pue:g}", f"under the energy model {model.name}"
    if report.game is not None:
        # What a game answers is energy at the facility as it stands.
        site, by = "facility, as the game says", f"as the game {visible(report.game)} says"
    sentences = [
        f"{batches} took {number(totals.wh, 4)} Wh ({site}), shared out by Shapley value "
        f"({report.method}) {by}. Shares miss no batch by more than "
        f"{totals.efficiency_error:.0e} of it.",
        _tier(report),
    ]
    if (cold := totals.cold) is not None:
        sentences.append(
            f"Model loads: {count(cold.loads)} took {number(cold.wh)} Wh more, of which requests carry "
            f"{number(cold.carried_wh)} Wh."
        )
    if model.idle_w and not totals.drawn:
        inside = f"{number(totals.idle_wh)} Wh in steps of a batch with nobody active"
        sentences.append(
            f"Idle GPUs draw {model.idle_w:g} W each: {inside}, in no share; between batches the log cannot tell."
        )
    if (sci := intensity(report)) is not None:
        per = f"{number(sci['sci_g_per_request'])} gCO2e a request"
        sentences.append(
            f"Carbon: {per} (SCI, location-based: E {number(sci['e_kwh'])} kWh × I {number(sci['i_g_per_kwh'])} g/kWh "
            f"+ M {number(sci['m_g'])} g, over R {count(sci['r_requests'])} requests)."
        )
    return sentences


def intensity(report: Report) -> dict[str, float] | None:
    """Software carbon intensity (ISO/IEC 21031), (E × I + M) per R, over the requests with carbon; None without."""
    whole = report.everything.sums
    if report.carbon is None or not whole["priced"]:
        return None
    grams, requests = whole[CARBON], whole["priced"]
    # Requests without an intensity of their own are in neither E nor R.
    energy = whole["priced energy"] / 1000
    embodied = report.carbon.embodied_g_per_request * requests
    return {
        "e_kwh": energy,
        "i_g_per_kwh": grams / energy if energy else 0.0,
        "m_g": embodied,
        "r_requests": round(requests),
        "sci_g_per_request": (grams + embodied) / requests,
    }


def document(report: Report) -> dict[str, Any]:
    """The report for a program."""
    totals, model = report.totals, report.model
    return {
        "schema": "readout-attribution/1",
        "name": report.name,
        "spec_sha256": report.spec_sha256,
        "seed": report.seed,
        "method": report.method,
        "game": report.game,
        "energy_model": {"name": model.name, "sha256": model.sha256},
        "rows": report.rows,
        "requests": totals.requests,
        "batches": totals.batches,
        "total_wh": totals.wh,
        "efficiency_error_wh": totals.efficiency_error_wh,
        "efficiency_error": totals.efficiency_error,
        "components": totals.components,
        "tier": totals.tier,
        "measured": totals.measured(),
        "unattributed": sum(totals.unattributed.values()),
        "unattributed_because": totals.unattributed,
        "incomplete_batches": totals.incomplete,
        "beyond_step_table": totals.beyond_table,
        "idle": {
            "w_per_gpu": model.idle_w,
            "gpus": model.gpus,
            "inside_batches_wh": None if totals.drawn else totals.idle_wh,
        },
        "cold_start": cold_start(totals),
        "pue": model.pue,
        "sci": intensity(report),
        "groups": [_group(group) for group in report.groups],
        "sentences": report.sentences,
        "notes": report.notes,
    }


def page(report: Report) -> str:
    """The report as Markdown."""
    rows = [
        [*(name(part) for part in (group.grouping, group.level)), *(markdown(cell) for cell in _cells(group))]
        for group in _listed(report)
    ]
    grid = table(["By", "Group", *_HEADERS], rows, right="ll" + "r" * len(_HEADERS))
    head = [f"# Energy of {markdown(report.name)}", "", *bullets(markdown(line) for line in headline(report))]
    parts = [
        section("## By group", grid, [_LEGEND]),
        section("## Rules of thumb", bullets(markdown(sentence) for sentence in report.sentences)),
        section("## Notes", bullets(markdown(note) for note in report.notes)),
    ]
    return "\n".join([*head, *(line for part in parts if part for line in ("", *part))]) + "\n"


def _tier(report: Report) -> str:
    totals = report.totals
    if not totals.factors.size:
        return "Tier 2: modelled energy."
    used = f"{count(totals.factors.size)} of {count(totals.batches)} batches"
    spread = f"{number(float(totals.factors.min()))} to {number(float(totals.factors.max()))}"
    return (
        f"Tier 3: the energy of {used} was measured, at {number(totals.factor_median)} times the modelled in the "
        f"middle batch ({spread})."
    )


def _listed(report: Report) -> Sequence[Group]:
    return [group for group in report.groups if group.grouping != BOTH]


def _title(group: Group) -> str:
    return group.level if group.grouping in (EVERYTHING, ARM, COMPANY) else f"{group.grouping}: {group.level}"


def _cells(group: Group) -> list[str]:
    saved = group.bias("leave_one_out")
    priced = group.sums["priced"]
    return [
        count(group.requests),
        number(group.sums[ENERGY] / group.requests if group.requests else None),
        number(group.sums[CARBON] / priced) if priced else DASH,
        *(_bias(group, rule) for rule in RULES),
        percent(None if saved is None else 1 + saved),
    ]


def _bias(group: Group, rule: str) -> str:
    """Of a group what it is charged more or less; of all requests, which no rule charges more, how far it is off."""
    if group.grouping == EVERYTHING:
        return f"{percent(group.off(rule))} off"
    return percent(group.bias(rule), signed=True)


def _group(group: Group) -> dict[str, Any]:
    sums, saved = group.sums, group.bias("leave_one_out")
    return {
        "grouping": group.grouping,
        "level": group.level,
        "requests": group.requests,
        "share_wh": group.share_wh,
        "cold_start_wh": sums[COLD],
        "energy_wh": sums[ENERGY],
        "wh_per_request": sums[ENERGY] / group.requests if group.requests else None,
        "g_co2e": sums[CARBON] if sums["priced"] else None,
        "g_per_request": sums[CARBON] / sums["priced"] if sums["priced"] else None,
        "rules": {
            rule: {"wh": sums[rule_column(rule)], "bias": group.bias(rule), "mean_absolute": group.off(rule)}
            for rule in RULES
        },
        "saved_without": None if saved is None else 1 + saved,
    }


def _annotations(report: Report) -> list[str]:
    title = workflow_property(f"Energy of {report.name}")
    told = [f"::notice title={title}::{workflow_message(headline(report)[0])}"]
    return told + [f"::warning title={title}::{workflow_message(note)}" for note in report.notes]


def _say(console: Console, text: str, style: str = "") -> None:
    console.print(Text(terminal(text, console.encoding), style), highlight=False, markup=False, emoji=False)
