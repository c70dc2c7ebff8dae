"""The plan in a terminal: what each design could see, then what to run."""

from __future__ import annotations

from rich.box import ROUNDED, SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from readout.memo.escape import terminal
from readout.memo.numbers import percent
from readout.planning import words
from readout.planning.designs import DesignPlan
from readout.planning.plan import PlanReport
from readout.text import shorten


def print_plan(report: PlanReport, console: Console) -> None:
    """Print the table of designs and the recommendation; text from data is shown as text."""
    _print(console, _designs(report, console))
    first = report.recommended.plan.first.target
    wanted = f"{percent(report.ask.power)} power at alpha {report.ask.alpha:g}"
    together = "; together: all clusters switch at one time" if words.has_together(report) else ""
    line = f"On {first.metric}, {report.ask.days:g} days, {wanted}; days: until the power is reached{together}."
    _print(console, _plain(line, console, "dim"))
    for note in report.notes:
        _print(console, _plain(f"Note: {note}", console, "dim"))
    _print(console, Text(""), _panel(report, console))


def _print(console: Console, *parts: RenderableType) -> None:
    for part in parts:
        console.print(part, highlight=False, markup=False, emoji=False)


def _plain(text: str, console: Console, style: str = "") -> Text:
    return Text(terminal(text, console.encoding), style)


def _designs(report: PlanReport, console: Console) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column("Design", overflow="fold")
    for header in ("Randomized", "Smallest effect", "Power", "Days"):
        table.add_column(header, justify="right", no_wrap=True)
    table.add_column("", overflow="fold", ratio=1)
    for plan in report.designs:
        table.add_row(*_row(report, plan, console))
    return table


def _row(report: PlanReport, plan: DesignPlan, console: Console) -> list[Text]:
    seen = plan.first
    chosen = plan is report.recommended.plan
    style = "dim" if plan.candidate.invalid else "bold" if chosen else ""
    cells = (
        plan.candidate.label, words.units(seen), words.size(seen.detectable, seen.relative), percent(seen.power),
        words.days(seen), words.remark(report, plan),
    )  # fmt: skip
    return [_plain(cell, console, style) for cell in cells]


def _panel(report: PlanReport, console: Console) -> Panel:
    style = "green" if report.recommended.enough else "yellow"
    lines: list[RenderableType] = [
        Text.assemble((terminal(f"Run {words.headline(report)}.", console.encoding), f"bold {style}"))
    ]
    lines.append(_plain(words.verdict(report), console))
    lines += [_plain(f"- {sentence}", console) for sentence in words.guards(report)]
    lines += [_plain(f"- {words.simulated(found)}", console) for found in report.simulations]
    if report.recommended.plan.candidate.block is not None:
        lines += [_plain(f"- {words.carried(found, report)}", console) for found in report.carryover]
        lines.append(_plain(f"- {words.washed(report)}", console))
    lines.append(Text.assemble(("Next: ", "bold"), _plain(report.assignment.use, console)))
    title = _plain(shorten(report.name, 60), console, "bold")
    return Panel(Group(*lines), title=title, title_align="left", border_style=style, box=ROUNDED)
