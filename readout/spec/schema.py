"""JSON Schema of the spec, for editors."""

from __future__ import annotations

import re
from dataclasses import fields, is_dataclass
from typing import Any

from pydantic import TypeAdapter

from readout.spec import designs, metrics, model, planning
from readout.spec.docs import field_docs
from readout.spec.fields import Section
from readout.spec.methods import METHODS, OPTIONS
from readout.spec.problems import keys

_OWN = ("design", "estimator", "metrics")
# Bounds that pydantic leaves in its own words where a field has two of them.
_BOUNDS = {"ge": "minimum", "gt": "exclusiveMinimum", "le": "maximum", "lt": "exclusiveMaximum"}


def json_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of a spec; every key bears its description.

    The schema is a little wider than `load`: what ties keys together is only checked there.
    """
    roots: dict[str, Any] = {key: hint for key, hint in keys(model.Sections).items() if key not in _OWN}
    roots |= {f"design.{kind}": section for kind, section in designs.KINDS.items()} | {"metrics.*": metrics.MetricKeys}
    made, shared = TypeAdapter.json_schemas(
        [(name, "validation", TypeAdapter(hint)) for name, hint in roots.items()], ref_template="#/$defs/{model}"
    )
    schemas: dict[str, Any] = {name: made[(name, "validation")] for name in roots}
    schemas["design"] = {"oneOf": [schemas[f"design.{kind}"] for kind in designs.KINDS]}
    schemas["metrics"] = {"type": "object", "minProperties": 1, "additionalProperties": schemas["metrics.*"]}
    schemas["estimator"] = _estimator()
    docs = field_docs(model.Sections)
    schema: dict[str, Any] = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "readout spec",
        "description": "What was run, on which logs, and what would decide.",
        "type": "object",
        "properties": {key: {**schemas[key], "description": docs.get(key, "")} for key in keys(model.Sections)},
        "required": ["logs", "design", "metrics"],
        "additionalProperties": False,
        "$defs": dict(sorted(shared.get("$defs", {}).items())),
    }
    _tidy(schema, {section.__name__: section for section in _sections()})
    used = set(re.findall(r"'#/\$defs/(\w+)'", repr(schema)))
    schema["$defs"] = {name: part for name, part in schema["$defs"].items() if name in used}
    return schema


def _sections() -> list[type]:
    found = [value for module in (model, metrics, planning, designs) for value in vars(module).values()]
    return [cls for cls in found if isinstance(cls, type) and is_dataclass(cls) and issubclass(cls, Section)]


def _tidy(node: Any, sections: dict[str, type]) -> None:
    """Describe every section's keys, and write what pydantic writes for machines as a spec's author would."""
    if isinstance(node, list):
        for item in node:
            _tidy(item, sections)
    if not isinstance(node, dict):
        return
    section = sections.get(node["title"]) if isinstance(node.get("title"), str) else None
    if section is not None and "properties" in node:
        docs = field_docs(section)
        for key, name in zip(keys(section), [f.name for f in fields(section)], strict=True):
            node["properties"][key]["description"] = docs.get(name, "")
            node["properties"][key].pop("title", None)
        del node["title"]
        if section in designs.KINDS.values():
            node["required"] = ["kind", *node.get("required", [])]
            node["properties"]["kind"].pop("default")
    for own, said in _BOUNDS.items():
        if isinstance(node.get(own), int | float):
            node[said] = node.pop(own)
    if "default" in node and not isinstance(node["default"], dict):
        default = _as_written(node["default"])
        node.pop("default") if default in (None, []) else node.update(default=default)
    for value in node.values():
        _tidy(value, sections)


def _as_written(default: Any) -> Any:
    """A default as YAML has it: durations are ``5m``, not ISO 8601."""
    if isinstance(default, list):
        return [_as_written(item) for item in default]
    found = re.fullmatch(r"P(?:T(\d+)([SMH])|(\d+)D)", default) if isinstance(default, str) else None
    if not found:
        return default
    return f"{found[3]}d" if found[3] else f"{found[1]}{found[2].lower()}"


def _estimator() -> dict[str, Any]:
    names = list(dict.fromkeys(name for known in METHODS.values() for name in known))
    forms: list[dict[str, Any]] = [{"enum": ["auto", *names]}]
    forms += [_form({"const": name}, OPTIONS[name], ["method"]) for name in names]
    # Options without a method belong to the design's first one, which only `load` knows.
    anywhere = {option: kind for known in METHODS.values() for option, kind in OPTIONS[known[0]].items()}
    forms.append(_form({"const": "auto"}, anywhere, []))
    return {"anyOf": forms}


def _form(method: dict[str, Any], options: Any, required: list[str]) -> dict[str, Any]:
    properties = {"method": {**method, "description": "The method of estimation."}}
    for name, option in options.items():
        described = option.schema() if required else {}
        properties[name] = {**described, "description": f"{option.expected()}."}
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
