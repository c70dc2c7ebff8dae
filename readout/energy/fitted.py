"""What ``readout attribute --fit`` prints."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from readout.energy.fitting import FitReport, model_yaml, sentences
from readout.memo.document import dump
from readout.memo.escape import markdown, name, terminal, workflow_message, workflow_property
from readout.memo.numbers import DASH, number
from readout.memo.tables import bullets, section, table

_HEADERS = ("Parameter", "Joules", "Std. error", "95 % interval", "Before")


def print_fit(report: FitReport, console: Console) -> None:
    """Print the parameters and how well they fit; text from data is shown as text."""
    grid = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for i, header in enumerate(_HEADERS):
        grid.add_column(header, justify="left" if i == 0 else "right", no_wrap=True)
    for row in _rows(report):
        grid.add_row(*(Text(terminal(cell, console.encoding)) for cell in row))
    console.print(grid, highlight=False, markup=False, emoji=False)
    console.print()
    for sentence in sentences(report):
        text = Text(terminal(f"- {sentence}", console.encoding))
        console.print(text, highlight=False, markup=False, emoji=False)


def shown(report: FitReport, output_format: str) -> str:
    """The fit as ``readout-fit/1`` JSON, Markdown, or GitHub annotations."""
    if output_format == "json":
        return dump(document(report))
    if output_format == "markdown":
        return page(report)
    title = workflow_property(f"Energy model of {report.name}")
    return "\n".join(f"::notice title={title}::{workflow_message(sentence)}" for sentence in sentences(report)[:2])


def document(report: FitReport) -> dict[str, Any]:
    """The fit for a program."""
    found = report.fit
    quality = {
        key: {k: v for k, v in asdict(getattr(found, key)).items() if k != "worst"}
        for key in ("fitted", "held_out", "before")
    }
    return {
        "schema": "readout-fit/1",
        "name": report.name,
        "spec_sha256": report.spec_sha256,
        "seed": report.seed,
        "started_from": report.before,
        "energy_model": {"name": found.model.name, "sha256": found.model.sha256},
        "batches": report.batches,
        "used": found.batches,
        "unusable": report.unusable,
        "parameters": [asdict(parameter) for parameter in found.parameters],
        "quality": quality,
        "worst_batch": report.worst,
        "sentences": sentences(report),
        "yaml": model_yaml(report),
    }


def page(report: FitReport) -> str:
    """The fit as Markdown."""
    rows = [[name(row[0]), *(markdown(cell) for cell in row[1:])] for row in _rows(report)]
    lines = [
        f"# Energy model of {markdown(report.name)}",
        "",
        *table(_HEADERS, rows, right="lrrrr"),
        "",
        *section("## How well it fits", bullets(markdown(sentence) for sentence in sentences(report))),
    ]
    return "\n".join(lines) + "\n"


def _rows(report: FitReport) -> list[tuple[str, ...]]:
    return [
        (
            p.name,
            number(p.value),
            number(p.std_error) if not p.kept else "not fitted",
            DASH if p.kept else f"[{number(p.ci_low)}, {number(p.ci_high)}]",
            number(p.before),
        )
        for p in report.fit.parameters
    ]
