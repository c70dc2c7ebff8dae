"""What a key means, read from the text below its field: one place serves the source, the JSON Schema and the hints."""

from __future__ import annotations

import ast
import inspect
import sys
from functools import cache


def field_docs(section: type) -> dict[str, str]:
    """The text below each field of a section, inherited fields included; empty where there is no source to read."""
    docs: dict[str, str] = {}
    for cls in reversed(section.__mro__):
        docs.update(_module_docs(cls.__module__).get(cls.__name__, {}))
    return docs


@cache
def _module_docs(module: str) -> dict[str, dict[str, str]]:
    if not module.startswith("readout."):
        return {}
    try:
        tree = ast.parse(inspect.getsource(sys.modules[module]))
    except OSError:
        return {}
    return {node.name: _class_docs(node) for node in tree.body if isinstance(node, ast.ClassDef)}


def _class_docs(node: ast.ClassDef) -> dict[str, str]:
    docs = {}
    for entry, below in zip(node.body, node.body[1:], strict=False):
        if (
            isinstance(entry, ast.AnnAssign)
            and isinstance(entry.target, ast.Name)
            and isinstance(below, ast.Expr)
            and isinstance(below.value, ast.Constant)
            and isinstance(below.value.value, str)
        ):
            docs[entry.target.id] = " ".join(below.value.value.split())
    return docs
