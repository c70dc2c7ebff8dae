"""The readout in a terminal: decision panel, table of effects, checks that failed or warn."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Protocol

from rich.box import ROUNDED, SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from readout.memo import words
from readout.memo.capacity_section import sentence
from readout.memo.escape import terminal
from readout.memo.long_run_section import sentence as of_the_long_run
from readout.memo.numbers import count, decimals, effect, fixed, level, p_value, relative
from readout.memo.segments_section import equal_effects, reading, rows_of
from readout.results import Action, Check, MetricResult, Readout, Rows, SegmentResult, Status
from readout.text import shorten

_ACTION_STYLE: Final[dict[Action, str]] = {
    "ship": "green",
    "ramp": "yellow",
    "target": "green",
    "holdout": "yellow",
    "pause": "red",
    "rollback": "red",
    "instrument": "magenta",
    "stronger_design": "magenta",
}
_STATUS_STYLE: Final[dict[Status, str]] = {"pass": "green", "warn": "yellow", "fail": "red", "skip": "dim"}
_VERDICT_STYLE: Final = {"better": "green", "worse": "red", "no_effect": "", "inconclusive": "yellow"}
_GUARDRAIL_STYLE: Final = {"holds": "green", "harmed": "red", "inconclusive": "yellow"}
_NAME = 28  # characters of a name in the table
_SEGMENTS = 12  # rows of segments; the memo has them all
_UNBOUNDED = 10_000  # columns: more than any table asks for


class CheckReport(Protocol):
    """What ``readout check`` found; no effect among it."""

    @property
    def name(self) -> str: ...
    @property
    def rows(self) -> Rows: ...
    @property
    def checks(self) -> tuple[Check, ...]: ...
    @property
    def notes(self) -> tuple[str, ...]: ...


def print_readout(readout: Readout, console: Console) -> None:
    """Print effects, checks and the decision, the decision last, where the eye rests in a terminal.

    Width, colour and encoding are the console's. Text from data is shown as text: it cannot style, move or command.
    """
    if words.estimated(readout.metrics):
        _print(console, _effects(readout, console))
        _print(console, _plain(f"{words.intervals(readout).capitalize()} at {level(readout.alpha)}.", console, "dim"))
        failed = words.undermining(readout)
        if failed:
            names = ", ".join(check.name for check in failed)
            caution = f"Failed: {names}. These numbers may not be the effect of the treatment."
            _print(console, _plain(caution, console, "red"))
    else:
        _print(console, Text("No effect was estimated."))
    if rows := rows_of(readout):
        differ = [_plain(text, console) for text in equal_effects(readout, deciding=True)]
        _print(console, Text(""), *differ, _segments(rows, console))
    if tail := sentence(readout):
        _print(console, Text(""), _plain(tail, console))
    if later := of_the_long_run(readout):
        _print(console, Text(""), _plain(later, console))
    raised = [c for c in words.by_status(readout.checks) if c.status in ("fail", "warn")]
    if raised:
        _print(console, Text(""), _checks(raised, console))
    _print(console, _tally(readout.checks), Text(""), _decision(readout, console))


def print_checks(report: CheckReport, console: Console) -> None:
    """Print every check, its finding and what it asks for, and the row accounting."""
    _print(console, _plain(report.name, console, "bold"))
    dropped = "".join(f"; {count(n)} dropped: {reason}" for reason, n in report.rows.dropped.items())
    _print(console, _plain(f"{count(report.rows.read)} rows read, {count(report.rows.kept)} kept{dropped}", console))
    _print(console, Text(""), _checks(words.by_status(report.checks), console), _tally(report.checks))
    for note in report.notes:
        _print(console, _plain(f"Note: {note}", console))


def _print(console: Console, *parts: RenderableType) -> None:
    for part in parts:
        console.print(part, highlight=False, markup=False, emoji=False)


def _plain(text: str, console: Console, style: str = "") -> Text:
    return Text(terminal(text, console.encoding), style)


def _effects(readout: Readout, console: Console) -> Table:
    """The table of effects, without the values by arm or the absolute effects where the console is too narrow."""
    unbounded = console.options.update(max_width=_UNBOUNDED)
    for values, absolute in ((True, True), (False, True)):
        table = _effects_table(readout, console, values, absolute)
        if console.measure(table, options=unbounded).maximum <= console.width:
            return table
    return _effects_table(readout, console, values=False, absolute=False)


def _effects_table(readout: Readout, console: Console, values: bool, absolute: bool) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    arms = words.several_arms(readout)
    wanted = {"Arm": arms, "Control": values, "Treatment": values, "Effect": absolute}
    for header in ("Metric", "Arm", "Control", "Treatment", "Effect", "Relative", "Verdict"):
        if wanted.get(header, True):
            left = header in ("Metric", "Arm", "Verdict")
            table.add_column(header, justify="left" if left else "right", overflow="fold", no_wrap=not left)
    for metric in words.by_role(readout.metrics):
        cells = _cells(metric, console)
        table.add_row(*(cell for header, cell in cells.items() if wanted.get(header, True)))
    return table


def _cells(metric: MetricResult, console: Console) -> dict[str, Text]:
    """Cells by column; role, interval and guardrail stand on a second line."""
    bold = "bold" if metric.role == "primary" else ""
    interval = (metric.ci_low, metric.ci_high)
    values = (metric.control_value, metric.treatment_value)
    places = decimals(values if None in interval else interval)
    control, treatment = (_plain(fixed(value, places), console) for value in values)
    shown = effect(metric.estimate, *interval)
    in_percent = relative(metric.relative, metric.relative_ci_low, metric.relative_ci_high)
    verdict = _plain(words.verdict(metric), console, _VERDICT_STYLE[metric.verdict] if metric.verdict else "")
    if metric.guardrail is not None:
        word = words.guardrail(metric) if metric.guardrail == "inconclusive" else f"guardrail {words.guardrail(metric)}"
        verdict = Text.assemble(verdict, "\n", (word, _GUARDRAIL_STYLE[metric.guardrail]))
    return {
        "Metric": Text.assemble(
            _plain(shorten(metric.metric, _NAME), console, bold), "\n",
            _plain(metric.role.replace("_", " "), console, "dim"),
        ),
        "Arm": _plain(shorten(metric.arm, _NAME), console),
        "Control": control,
        "Treatment": treatment,
        "Effect": _plain(shown.partition(" [")[0], console) + _second_line(shown, console),
        "Relative": _plain(in_percent.partition(" [")[0], console) + _second_line(in_percent, console),
        "Verdict": verdict,
    }  # fmt: skip


def _second_line(shown: str, console: Console) -> Text:
    _, bracket, interval = shown.partition(" [")
    return Text("\n").append_text(_plain(f"[{interval}", console, "dim")) if bracket else Text("")


def _segments(rows: list[SegmentResult], console: Console) -> Table:
    """The levels of segments: effect on the primary, whether it differs, net value, and how it is to be read."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    money = any(one.net is not None for one in rows)
    for header in ("Segment", "Effect", "Differs, p", *(["Net per 1,000"] if money else []), "By itself"):
        left = header in ("Segment", "By itself")
        table.add_column(header, justify="left" if left else "right", overflow="fold", no_wrap=not left)
    several = len({(one.result.metric, one.result.arm) for one in rows}) > 1
    for one in rows[:_SEGMENTS]:
        m = one.result
        of = f"\n{shorten(m.metric, _NAME)} ({shorten(m.arm, _NAME)})" if several else ""
        style = "green" if one.recommended else "dim" if one.descriptive else ""
        shown = [effect(m.estimate, m.ci_low, m.ci_high), effect(one.net, one.net_low, one.net_high)]
        cells = [_plain(text.partition(" [")[0], console) + _second_line(text, console) for text in shown]
        table.add_row(
            Text.assemble(_plain(shorten(one.said, _NAME), console), _plain(of, console, "dim") if of else ""),
            cells[0],
            p_value(one.difference_p_value),
            *(cells[1:] if money else []),
            Text(reading(one), style),
        )
    return table


def _checks(checks: Iterable[Check], console: Console) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for header in ("Status", "Check"):
        table.add_column(header, no_wrap=True)
    table.add_column("What was found", overflow="fold", ratio=1)
    for check in checks:
        found = _plain(check.message, console)
        if check.status == "fail" and check.action:
            found = Text.assemble(found, "\n", (f"asks for: {words.ACTION[check.action].lower()}", "dim"))
        table.add_row(
            Text(check.status, _STATUS_STYLE[check.status]),
            _plain(shorten(check.name, _NAME), console),
            found,
        )
    return table


def _tally(checks: Iterable[Check]) -> Text:
    statuses = [check.status for check in checks]
    word: dict[Status, str] = {"fail": "failed", "warn": "warned", "pass": "passed", "skip": "skipped"}
    return Text("Checks: " + ", ".join(f"{statuses.count(status)} {text}" for status, text in word.items()), "dim")


def _decision(readout: Readout, console: Console) -> Panel:
    decision = readout.decision
    style = _ACTION_STYLE[decision.action]
    opening, rest = (_plain(text, console) for text in words.opening(decision))
    opening.stylize(f"bold {style}")
    parts: list[RenderableType] = [Text.assemble(opening, " ", rest)]
    if words.several_arms(readout):
        parts += [_item(f"{arm}: {words.ACTION[action]}", console) for arm, action in decision.by_arm.items()]
    parts += [_item(reason, console) for reason in decision.reasons]
    if decision.next_step:
        parts.append(Text.assemble(("Next: ", "bold"), _plain(decision.next_step, console)))
    title = _plain(shorten(readout.name, 60), console, "bold")
    return Panel(Group(*parts), title=title, title_align="left", border_style=style, box=ROUNDED)


def _item(text: str, console: Console) -> Padding:
    line = Table.grid(padding=(0, 1))
    line.add_row("-", _plain(text, console))
    return Padding(line, (0, 0, 0, 1))
