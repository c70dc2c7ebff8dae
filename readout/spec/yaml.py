"""YAML 1.2 core, read once into plain data and the place where every key and value stands.

PyYAML scans and composes; which plain scalar is what is decided here, because PyYAML follows YAML 1.1, where ``on`` is
a boolean, ``010`` is eight and ``1e-3`` is text. Under the core schema of YAML 1.2 (section 10.3.2) only ``true`` and
``false`` are booleans, a leading zero means nothing, and dates, ``yes`` and ``20:30`` are text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from yaml.composer import Composer
from yaml.error import Mark as YamlMark
from yaml.error import MarkedYAMLError
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from yaml.parser import Parser
from yaml.reader import Reader, ReaderError
from yaml.resolver import BaseResolver
from yaml.scanner import Scanner

from readout.spec.problems import Finding, KeyPath, dotted, label
from readout.text import visible

MAX_DEPTH = 40
MAX_NODES = 20_000
"""Nodes after aliases are expanded: a spec has hundreds, a billion-laughs file has billions."""

_NULL = re.compile(r"~|null|Null|NULL|")
_BOOL = re.compile(r"true|True|TRUE|false|False|FALSE")
_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_INF_NAN = re.compile(r"([-+]?)\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_PREFIX = "tag:yaml.org,2002:"


class YamlSyntaxError(Exception):
    """The text is not YAML that can be read on: one message and, where known, a 1-based line and column."""

    def __init__(self, message: str, line: int = 0, column: int = 0) -> None:
        self.message, self.line, self.column = message, line, column
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class Mark:
    """Where a key and its value stand, 1-based (line, column), and a scalar's own text."""

    key: tuple[int, int]
    value: tuple[int, int]
    text: str = ""


@dataclass(slots=True)
class Document:
    """Plain data, the marks of every path in it, and what was wrong without stopping the reading."""

    data: Any = None
    marks: dict[KeyPath, Mark] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    nodes: int = 0


def parse(text: str) -> Document:
    """Read one YAML document.

    Args:
        text: The decoded text.

    Returns:
        The document; mapping keys are text (``0`` and ``"0"`` are the same key), a key given twice keeps its first
        value and is among the findings. An empty text gives ``data`` None.

    Raises:
        YamlSyntaxError: It cannot be read on from some place.
    """
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
    except MarkedYAMLError as error:
        raise _syntax(error) from None
    except ReaderError as error:
        line, column = _line_column(text, error.position)
        raise YamlSyntaxError(
            f"the character U+{ord(text[error.position]):04X} is not allowed in YAML", line, column
        ) from None
    document = Document()
    if node is not None:
        at = _position(node.start_mark)
        document.marks[()] = Mark(at, at, node.value if isinstance(node, ScalarNode) else "")
        document.data = _build(node, (), document, ())
    return document


class _Loader(Reader, Scanner, Parser, Composer, BaseResolver):
    """PyYAML up to the node tree, with the core schema's tags and a bound on depth."""

    def __init__(self, text: str) -> None:
        Reader.__init__(self, text)
        Scanner.__init__(self)
        Parser.__init__(self)
        Composer.__init__(self)
        BaseResolver.__init__(self)
        self._depth = 0

    def compose_node(self, parent: Node | None, index: int) -> Node | None:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            line, column = _position(self.peek_event().start_mark)  # type: ignore[no-untyped-call]
            raise YamlSyntaxError(f"nested more than {MAX_DEPTH} levels deep", line, column)
        node: Node | None = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def resolve(self, kind: type[Node], value: Any, implicit: Any) -> str:
        if kind is ScalarNode:
            return _PREFIX + (_core_tag(value) if implicit[0] else "str")
        return _PREFIX + ("seq" if kind is SequenceNode else "map")


def _core_tag(text: str) -> str:
    if _NULL.fullmatch(text):
        return "null"
    if _BOOL.fullmatch(text):
        return "bool"
    if _INT.fullmatch(text):
        return "int"
    return "float" if _FLOAT.fullmatch(text) or _INF_NAN.fullmatch(text) else "str"


def _build(node: Node, path: KeyPath, document: Document, above: tuple[int, ...]) -> Any:
    document.nodes += 1
    if id(node) in above:
        raise YamlSyntaxError("an alias stands inside its own anchor", *_position(node.start_mark))
    if document.nodes > MAX_NODES or len(path) > MAX_DEPTH:
        raise YamlSyntaxError(
            f"aliases expand to more than {MAX_NODES:,} values or {MAX_DEPTH} levels", *_position(node.start_mark)
        )
    if isinstance(node, ScalarNode):
        return _scalar(node, path, document)
    if node.tag not in (_PREFIX + "seq", _PREFIX + "map"):
        document.findings.append(_unknown_tag(node, path))
    if isinstance(node, SequenceNode):
        items = []
        for index, child in enumerate(node.value):
            at = _position(child.start_mark)
            here = (*path, index)
            document.marks[here] = Mark(at, at, child.value if isinstance(child, ScalarNode) else "")
            items.append(_build(child, here, document, (*above, id(node))))
        return items
    assert isinstance(node, MappingNode)
    return dict(_pairs(node, path, document, (*above, id(node))))


def _pairs(node: MappingNode, path: KeyPath, document: Document, above: tuple[int, ...]) -> Iterator[tuple[str, Any]]:
    first: dict[str, int] = {}
    for key_node, value_node in node.value:
        at = _position(key_node.start_mark)
        if not isinstance(key_node, ScalarNode):
            raise YamlSyntaxError("a key must be a plain word; quote it, or put a space after `:`", *at)
        key = label(_scalar(key_node, path, document))
        here = (*path, key)
        if key in first:
            message = f"duplicate key: line {at[0]} gives again what line {first[key]} gave"
            document.findings.append(Finding(here, message, "keep one of them", at=at))
            continue
        first[key] = at[0]
        text = value_node.value if isinstance(value_node, ScalarNode) else ""
        document.marks[here] = Mark(at, _position(value_node.start_mark), text)
        yield key, _build(value_node, here, document, above)


def _scalar(node: ScalarNode, path: KeyPath, document: Document) -> Any:
    kind, text = node.tag.removeprefix(_PREFIX), str(node.value)
    if kind == "str" or not node.tag.startswith(_PREFIX) or kind not in ("null", "bool", "int", "float"):
        if kind != "str":
            document.findings.append(_unknown_tag(node, path))
        return text
    # An explicit tag (`!!int 5`) is believed only where the text is one.
    if kind == "null":
        return None
    if kind == "bool" and _BOOL.fullmatch(text):
        return text.lower() == "true"
    if kind == "int" and _INT.fullmatch(text):
        return _integer(text)
    if kind == "float" and _FLOAT.fullmatch(text):
        return float(text)
    if kind == "float" and _INF_NAN.fullmatch(text):
        return float(text.replace(".", "", 1))
    document.findings.append(Finding(path, f"{visible(text)} is not a YAML {kind}", at=_position(node.start_mark)))
    return text


def _integer(text: str) -> int | str:
    if text.startswith(("0o", "0x")):
        return int(text[2:], 8 if text[1] == "o" else 16)
    # Python refuses to read thousands of digits; such a text is no number that a spec could mean.
    return int(text) if len(text) < 400 else text


def _unknown_tag(node: Node, path: KeyPath) -> Finding:
    tag = visible(str(node.tag).replace(_PREFIX, "!!"))
    where = dotted(path) or "the document"
    return Finding(
        path, f"the YAML tag {tag} is not read", f"write {where} without a tag", at=_position(node.start_mark)
    )


def _position(mark: YamlMark) -> tuple[int, int]:
    return mark.line + 1, mark.column + 1


def _line_column(text: str, position: int) -> tuple[int, int]:
    before = text[:position].split("\n")
    return len(before), len(before[-1]) + 1


def _syntax(error: MarkedYAMLError) -> YamlSyntaxError:
    mark = error.problem_mark or error.context_mark
    problem = str(error.problem or error.context or "it cannot be read")
    if "'\\t'" in problem:
        message = "a tab stands where YAML wants spaces"
    elif "single document" in str(error.context):
        message = "a second document starts here; a spec is one document"
    elif "mapping values are not allowed" in problem:
        message = "not valid YAML: a `:` is not expected here; check the indentation, or quote the text"
    elif "undefined alias" in problem:
        message = f"not valid YAML: {visible(problem.replace('found ', ''))}; no anchor of that name stands above"
    else:
        message = f"not valid YAML: {visible(problem)}" + (f" {visible(str(error.context))}" if error.context else "")
    return YamlSyntaxError(message, *(_position(mark) if mark else (0, 0)))
