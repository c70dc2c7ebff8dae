"""``--set dotted.key=value``: the command line's last word on a spec."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from readout.errors import Problem
from readout.spec.problems import KeyPath, dotted, show
from readout.spec.yaml import Document, Mark, YamlSyntaxError, parse
from readout.text import visible


class _RefusedError(Exception):
    """An override that cannot be carried out."""

    def __init__(self, message: str, hint: str = "") -> None:
        self.message, self.hint = message, hint
        super().__init__(message)


def override(
    document: Document, overrides: Sequence[str]
) -> tuple[Mapping[KeyPath, Mark], tuple[KeyPath, ...], list[Problem]]:
    """Carry overrides out on the document's data, the later one winning.

    Args:
        document: Read from the file; its data and marks are changed in place.
        overrides: ``dotted.key=value`` each.

    Returns:
        The marks, the paths that were overridden, and a problem for each override that could not be carried out.
    """
    paths: list[KeyPath] = []
    problems: list[Problem] = []
    for given in overrides:
        key, equals, text = given.partition("=")
        key = key.strip()
        try:
            if not equals or not all(key.split(".")):
                raise _RefusedError("expected dotted.key=value", "such as --set decision.alpha=0.1")
            value, marks = _value(text)
            path = _put(document.data, key.split("."), value)
        except _RefusedError as error:
            problems.append(Problem(f"--set {visible(key)}", error.message, error.hint))
            continue
        for old in [mark for mark in document.marks if mark[: len(path)] == path]:
            del document.marks[old]
        document.marks.update({(*path, *below): mark for below, mark in marks.items()})
        document.findings[:] = [f for f in document.findings if f.path[: len(path)] != path]
        paths.append(path)
    return document.marks, tuple(paths), problems


def _value(text: str) -> tuple[Any, Mapping[KeyPath, Mark]]:
    try:
        document = parse(text)
    except YamlSyntaxError as error:
        raise _RefusedError(f"the value {show(text)} cannot be read: {error.message}") from None
    if document.findings:
        raise _RefusedError(f"the value {show(text)}: {document.findings[0].message}")
    return document.data, document.marks


def _put(data: Any, parts: list[str], value: Any) -> KeyPath:
    """Set the value at a dotted path, making mappings on the way; an existing key may have dots itself."""
    path: list[str | int] = []
    while True:
        if isinstance(data, dict):
            length = next((n for n in range(len(parts), 0, -1) if ".".join(parts[:n]) in data), 1)
            key: str | int = ".".join(parts[:length])
        elif isinstance(data, list):
            length, key = 1, _index(parts[0], len(data), path)
        else:
            where = dotted(tuple(path)) or "the spec"
            raise _RefusedError(
                f"{where} is {show(data)}, not a mapping", f"give it whole: --set '{where}={{key: value}}'"
            )
        path.append(key)
        parts = parts[length:]
        if not parts:
            data[key] = value
            return tuple(path)
        if isinstance(data, dict) and data.get(key) is None:
            data[key] = {}
        data = data[key]


def _index(part: str, length: int, path: list[str | int]) -> int:
    if not part.isascii() or not part.isdigit() or len(part) > 6 or int(part) >= length:
        expected = f"an index from 0 to {length - 1}" if length else "nothing: the list is empty"
        raise _RefusedError(f"{dotted(tuple(path))} is a list; expected {expected}, got {show(part)}")
    return int(part)
