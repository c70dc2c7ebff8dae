"""From a finding at a path of the spec to a `Problem` with line, column and caret.

A `Finding` knows a path (``("metrics", "ttft", "better")``); a `Source` knows where each path stands in the file or on
the command line. They meet in `Source.problem`. Pydantic's errors become findings here too, in the words of a spec's
author.
"""

from __future__ import annotations

import difflib
import re
import typing
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any

from readout.errors import Problem
from readout.text import visible

if TYPE_CHECKING:
    from pydantic import ValidationError

    from readout.spec.yaml import Mark

KeyPath = tuple[str | int, ...]
_WIDTH = 110


@dataclass(frozen=True, slots=True)
class Finding:
    """Something wrong at a path.

    Attributes:
        path: Keys and list indices from the root; one that is absent stands last.
        message: What was expected and what was found, without the path.
        hint: What to do.
        on_key: The key itself is wrong, not its value: the caret goes below the key.
        at: The exact 1-based line and column, where the path alone does not say it.
    """

    path: KeyPath
    message: str
    hint: str = ""
    on_key: bool = False
    at: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Source:
    """The text of a spec and where everything stands in it.

    Attributes:
        name: The file's path as the user gave it.
        lines: The file's lines.
        marks: Positions by path.
        overridden: Paths that ``--set`` gave, later ones last.
    """

    name: str
    lines: tuple[str, ...] = ()
    marks: Mapping[KeyPath, Mark] = field(default_factory=dict)
    overridden: tuple[KeyPath, ...] = ()

    def problem(self, path: KeyPath, message: str, hint: str = "", *, on_key: bool = False) -> Problem:
        """A problem at ``path``: at its value, at its key, or at what stands nearest above it."""
        return self.locate(Finding(path, message, hint, on_key))[1]

    def locate(self, finding: Finding) -> tuple[tuple[int, int], Problem]:
        """The finding's position, for sorting, and its `Problem`; what ``--set`` gave comes after the file."""
        path = dotted(finding.path)
        message = f"{path}: {finding.message}" if path else finding.message
        for index, given in reversed(list(enumerate(self.overridden))):
            if finding.path[: len(given)] == given:
                return (10**9, index), Problem(f"--set {dotted(given)}", message, finding.hint)
        line, column = finding.at or self._position(finding.path, finding.on_key)
        where = visible(self.name)
        if not line:
            return (0, 0), Problem(where, message, finding.hint)
        return (line, column), Problem(f"{where}:{line}:{column}", message, finding.hint, self.caret(line, column))

    def _position(self, path: KeyPath, on_key: bool) -> tuple[int, int]:
        if path in self.marks:
            return self.marks[path].key if on_key else self.marks[path].value
        for length in range(len(path) - 1, -1, -1):
            if path[:length] in self.marks:
                return self.marks[path[:length]].key
        return (0, 0)

    def caret(self, line: int, column: int) -> str:
        """Source line ``line`` and a line with a caret below 1-based ``column``; a long line is cut around it."""
        if not 0 < line <= len(self.lines):
            return ""
        text, at = self.lines[line - 1], column - 1
        start = max(0, at - _WIDTH // 2) if len(text) > _WIDTH else 0
        shown = "".join(ch if unicodedata.category(ch)[0] != "C" else "·" for ch in text[start : start + _WIDTH])
        pad = sum(_columns(ch) for ch in shown[: at - start])
        return f"{shown}\n{' ' * pad}^"


def _columns(ch: str) -> int:
    """Columns that a character takes in a terminal."""
    if unicodedata.combining(ch):
        return 0
    return 2 if unicodedata.east_asian_width(ch) in "WF" else 1


def sort_problems(source: Source, findings: Iterable[Finding]) -> list[Problem]:
    """All findings as problems, each once, in the order in which they stand."""
    located = {source.locate(f) for f in findings}
    return [problem for _, problem in sorted(located, key=lambda p: (p[0], p[1].message))]


def dotted(path: KeyPath) -> str:
    """``metrics.ttft.better``, as ``--set`` takes it."""
    return ".".join(visible(str(part), 60) for part in path)


def label(value: object) -> str:
    """A scalar as the text under which labels are compared: ``true``, ``0`` for 0 and 0.0, ``null``."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def show(value: object) -> str:
    """A value as a message names it: short, on one line, without control characters."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    return visible(repr(value), 60)


def suggest(word: object, known: Iterable[str]) -> str:
    """``; did you mean 'column'?``, or nothing where no known word is near."""
    near = difflib.get_close_matches(str(word), sorted(known), n=1)
    return f"; did you mean {visible(near[0])!r}?" if near else ""


def listing(words: Iterable[str], limit: int = 20) -> str:
    """Words for a message, separated by commas."""
    shown = [visible(word, 60) for word in words]
    return ", ".join(shown[:limit]) + (f" and {len(shown) - limit} more" if len(shown) > limit else "")


def unknown_key(path: KeyPath, known: Sequence[str], note: str = "") -> Finding:
    """The finding for a key that nobody reads; ``note`` replaces the suggestion."""
    message = "unknown key" + (f"; {note}" if note else suggest(path[-1], known))
    return Finding(path, message, f"keys here: {listing(known, 40)}", on_key=True)


def from_pydantic(error: ValidationError, data: Any, kind: Any, root: KeyPath) -> list[Finding]:
    """Pydantic's errors about ``data``, which was to become ``kind``, as findings below ``root``."""
    findings = []
    for item in error.errors(include_url=False):
        path = _within(data, item["loc"])
        absent = item["type"] in ("missing", "missing_argument") and len(path) == len(item["loc"]) - 1
        path = (*path, item["loc"][-1]) if absent else path
        findings.append(_finding(item, (*root, *path), kind, path))
    return findings


def _finding(item: Any, full: KeyPath, kind: Any, path: KeyPath) -> Finding:
    ctx, given = item.get("ctx", {}), item["input"]
    match item["type"]:
        case "expected":
            return Finding(full, str(ctx["text"]), str(ctx.get("hint", "")))
        case "unexpected_keyword_argument" | "extra_forbidden":
            return unknown_key(full, list(keys(section_at(kind, path[:-1]))))
        case "missing" | "missing_argument":
            from readout.spec.docs import field_docs

            owner = section_at(kind, path[:-1])
            return Finding(full, "needed, and not there", field_docs(owner).get(str(path[-1]), "") if owner else "")
        case "literal_error":
            known = re.findall(r"'([^']*)'", ctx["expected"]) or [str(ctx["expected"])]
            expected = f"one of {listing(known)}" if len(known) > 1 else known[0]
            return Finding(full, f"expected {expected}, got {show(given)}{suggest(given, known)}")
        case "too_short":
            return Finding(full, f"expected at least {ctx['min_length']} item{'s' * (ctx['min_length'] > 1)}, got none")
    expected = _EXPECTED.get(item["type"], "another kind of value")
    section = section_at(kind, path) if item["type"] == "dataclass_type" and isinstance(given, str) else None
    hint = f"write {{method: {given}}}" if given in _methods(section) else ""
    return Finding(full, f"expected {expected.format(**ctx)}, got {show(given)}", hint)


def _methods(section: type | None) -> tuple[Any, ...]:
    """The names that a section's ``method`` may bear."""
    return typing.get_args(keys(section).get("method"))


_EXPECTED = {
    "dataclass_type": "a mapping of keys",
    "dict_type": "a mapping of keys",
    "mapping_type": "a mapping of keys",
    "tuple_type": "a list",
    "list_type": "a list",
    "string_type": "text",
    "bool_type": "true or false",
    "int_type": "a whole number",
    "greater_than": "a number above {gt:g}",
    "greater_than_equal": "a number of at least {ge:g}",
    "less_than": "a number below {lt:g}",
    "less_than_equal": "a number of at most {le:g}",
}


def _within(data: Any, loc: Sequence[str | int]) -> KeyPath:
    """The part of pydantic's location that exists in the data: shorthands are expanded before it sees them."""
    path: list[str | int] = []
    for part in loc:
        in_list = isinstance(data, list) and isinstance(part, int) and part < len(data)
        if not in_list and not (isinstance(data, dict) and part in data):
            break
        data = data[part]
        path.append(part)
    return tuple(path)


def keys(section: type | None) -> dict[str, Any]:
    """The keys of a section, as written in YAML, and their types."""
    return _keys(section) if section is not None else {}


@cache
def _keys(section: type) -> dict[str, Any]:
    hints = typing.get_type_hints(section, include_extras=True)
    return {_alias(hints[f.name]) or f.name: hints[f.name] for f in fields(section)}


def _alias(hint: Any) -> str | None:
    for note in getattr(hint, "__metadata__", ()):
        if alias := getattr(note, "alias", None):
            return str(alias)
    return None


def section_at(kind: Any, path: Sequence[str | int]) -> type | None:
    """The section (a dataclass) at ``path`` of a type, seen through lists, mappings and optional types."""
    origin = typing.get_origin(kind)
    if origin is Annotated:
        return section_at(typing.get_args(kind)[0], path)
    if isinstance(kind, type) and is_dataclass(kind):
        if not path:
            return kind
        return section_at(keys(kind).get(str(path[0])), path[1:])
    inner = [arg for arg in typing.get_args(kind) if arg not in (type(None), ...)]
    if origin in (tuple, list) or (isinstance(origin, type) and issubclass(origin, Mapping)):
        return section_at(inner[-1], path[1:]) if path else None
    found = (section_at(arg, path) for arg in inner)
    return next((section for section in found if section is not None), None)
