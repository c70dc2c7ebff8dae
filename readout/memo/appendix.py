"""The memo's appendix: every check, every number of every metric, row accounting, diagnostics, reproducibility."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from readout.memo import words
from readout.memo.document import own_details, plain
from readout.memo.escape import markdown, name
from readout.memo.numbers import DASH, count, number, p_value, percent
from readout.memo.tables import bullets, section, table
from readout.results import Readout
from readout.text import shorten

_ROWS_SHOWN = 50  # of one diagnostic; readout.json has them all
_CELL = 160  # characters of a nested value in a cell


def appendix(readout: Readout) -> list[str]:
    """The lines of the appendix."""
    parts = (
        ["---", "", "# Appendix"],
        section("## All metrics", *_metrics(readout)),
        section("## All checks", _checks(readout)),
        section("## Rows", *_rows(readout)),
        section("## Columns", _columns(readout)),
        section("## Design", _design(readout)),
        section("## Attribution", _attribution(readout)),
        section("## Diagnostics", *_diagnostics(readout)),
        section("## Notes", bullets(markdown(note) for note in readout.notes)),
        section("## Reproducibility", _reproducibility(readout)),
    )
    lines: list[str] = []
    for part in parts:
        lines += ["", *part] if lines and part else part
    return lines


def _metrics(readout: Readout) -> tuple[list[str], list[str]]:
    arms = words.several_arms(readout)
    metrics = words.by_role(readout.metrics)
    if not metrics:
        return [], []
    arm = ["Arm"] if arms else []
    adjusted = [
        (header, field)
        for header, field in (("p (Holm)", "p_value_holm"), ("p (BH)", "p_value_bh"))
        if any(getattr(m, field) is not None for m in metrics)
    ]
    numbers = table(
        ["Metric", *arm, "Effect", "Std. error", "df", "Statistic", "p", *(h for h, _ in adjusted),
         "Detectable effect"],
        [
            [
                name(m.metric),
                *([name(m.arm)] if arms else []),
                *(number(v, 4) for v in (m.estimate, m.std_error, m.df, m.statistic)),
                *(p_value(getattr(m, field)) for field in ("p_value", *(f for _, f in adjusted))),
                number(m.minimum_detectable_effect),
            ]
            for m in metrics
        ],
        right="l" + "l" * arms + "rrrrrr" + "r" * len(adjusted),
    )  # fmt: skip
    definitions = table(
        ["Metric", *arm, "Role", "Better", "Estimand", "Method", "Unit", "n control", "n treatment", "Nulls",
         "Minimum effect", "Margin"],
        [
            [
                name(m.metric),
                *([name(m.arm)] if arms else []),
                *(markdown(text.replace("_", " ")) for text in (m.role, m.better, m.estimand)),
                name(m.method),
                markdown(m.unit),
                *(count(n) for n in (m.n_control, m.n_treatment, m.nulls)),
                *(markdown(text) if text else DASH for text in (m.minimum_effect, m.margin)),
            ]
            for m in metrics
        ],
        right="l" + "l" * arms + "lllllrrrrr",
    )  # fmt: skip
    return numbers, definitions


def _checks(readout: Readout) -> list[str]:
    rows = [
        [
            c.status,
            name(c.name),
            c.family,
            markdown(c.message),
            number(c.value),
            number(c.threshold),
            number(c.statistic),
            p_value(c.p_value),
        ]
        for c in words.by_status(readout.checks)
    ]
    headers = ["Status", "Check", "Family", "What was found", "Value", "Threshold", "Statistic", "p"]
    return table(headers, rows, right="llllrrrr") if rows else []


def _rows(readout: Readout) -> tuple[list[str], list[str]]:
    rows = readout.rows
    share = percent(rows.kept / rows.read if rows.read else None, digits=3)
    kept = f"{count(rows.read)} rows read, {count(rows.kept)} kept ({share})."
    dropped = [[markdown(reason), count(n)] for reason, n in rows.dropped.items()]
    return [kept], table(["Dropped because", "Rows"], dropped, right="lr") if dropped else []


def _columns(readout: Readout) -> list[str]:
    rows = []
    for role, column in readout.columns.items():
        names = [column] if isinstance(column, str) else list(column or ())
        unasked = "taken by its name" if role in readout.mapped_unasked else "named in the spec"
        rows.append([name(role), ", ".join(name(str(n)) for n in names) or DASH, unasked])
    return table(["Role", "Column", "Mapped"], rows) if rows else []


def _design(readout: Readout) -> list[str]:
    rows = [[name(key), _cell(value)] for key, value in readout.design.items()]
    return table(["Key", "Value"], rows) if rows else []


def _attribution(readout: Readout) -> list[str]:
    shares = readout.attribution or {}
    scalars = [(k, v) for k, v in shares.items() if k not in ("per_arm", "naive") and v is not None and v != {}]
    lines = table(["Quantity", "Value"], [[name(k), _cell(v)] for k, v in scalars]) if scalars else []
    per_arm = shares.get("per_arm")
    return lines + (["", *_records("arm", per_arm)] if per_arm else [])


def _diagnostics(readout: Readout) -> list[list[str]]:
    tables = dict(readout.diagnostics)
    for check in readout.checks:
        details = own_details(readout, check)
        if details and check.name not in tables:
            tables[check.name] = details
    scalars = {key: value for key, value in tables.items() if not _is_table(value)}
    parts = [table(["Quantity", "Value"], [[name(k), _cell(v)] for k, v in scalars.items()])] if scalars else []
    for key, value in tables.items():
        if _is_table(value):
            parts += [part for part in _diagnostic(key, value) if part]
    return parts


def _is_table(value: Any) -> bool:
    """Whether a value is shown as a table of its own: a mapping, or a list of mappings, with something in it."""
    if isinstance(value, Mapping):
        return bool(value)
    return _is_list(value) and bool(value) and all(isinstance(row, Mapping) for row in value)


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, (str, bytes))


def _diagnostic(key: str, value: Any) -> Iterable[list[str]]:
    """A heading and a table for a diagnostic, and the same again for each table inside a mapping."""
    if _is_list(value):
        yield [f"### {name(key)}"]
        yield _grid(value)
    elif all(isinstance(item, Mapping) for item in value.values()):
        yield [f"### {name(key)}"]
        yield _records("", value)
    else:
        flat = {k: v for k, v in value.items() if not _is_table(v)}
        if flat:
            yield [f"### {name(key)}"]
            yield table(["Quantity", "Value"], [[name(str(k)), _cell(v)] for k, v in flat.items()])
        for inner, item in value.items():
            if _is_table(item):
                yield from _diagnostic(f"{key}: {inner}", item)


def _records(header: str, records: Mapping[Any, Mapping[str, Any]]) -> list[str]:
    return _grid([{header: key, **row} for key, row in records.items()])


def _grid(rows: Sequence[Mapping[Any, Any]]) -> list[str]:
    keys = list(dict.fromkeys(key for row in rows for key in row))
    cells = [[_cell(row.get(key)) for key in keys] for row in rows[:_ROWS_SHOWN]]
    numeric = [all(isinstance(plain(row.get(key)), (int, float, type(None))) for row in rows) for key in keys]
    marks = "".join("r" if is_numeric else "l" for is_numeric in numeric)
    lines = table([name(str(key)) if key != "" else "" for key in keys], cells, right=marks)
    if len(rows) > _ROWS_SHOWN:
        lines += ["", f"{len(rows) - _ROWS_SHOWN} more rows are in `readout.json`."]
    return lines


def _cell(value: Any) -> str:
    """Any value as one table cell."""
    value = plain(value)
    if value is None or value == "":
        return DASH
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return count(value)
    if isinstance(value, float):
        return _trimmed(number(value, 4))
    if isinstance(value, dict):
        return _joined(f"{k} {_inner(v)}" for k, v in value.items())
    if isinstance(value, list) and value and all(isinstance(v, dict) for v in value):
        return f"{len(value)} rows, in `readout.json`"
    if isinstance(value, list):
        return _joined(_inner(v) for v in value)
    return markdown(str(value))


def _trimmed(text: str) -> str:
    return text.rstrip("0").rstrip(".") if "." in text and "e" not in text else text


def _inner(value: Any) -> str:
    return str(value) if isinstance(value, (str, dict, list)) else _cell(value)


def _joined(parts: Iterable[str]) -> str:
    return markdown(shorten(", ".join(parts), _CELL)) or DASH


def _reproducibility(readout: Readout) -> list[str]:
    decision = readout.decision
    return bullets(
        [
            f"Decision rule: {name(decision.rule)}",
            f"Spec, SHA-256: {name(readout.spec_sha256)}",
            f"Seed: {readout.seed}",
            f"As of: {markdown(readout.as_of)}",
            f"readout version: {markdown(readout.readout_version)}",
        ]
    )
