"""The JSON Schema accepts what `load` accepts and describes every key."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest

from readout.spec.schema import json_schema
from readout.spec.starter import STARTERS, starter
from readout.spec.yaml import parse

SCHEMA = json_schema()
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


def test_it_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert json.loads(json.dumps(SCHEMA)) == SCHEMA
    assert json_schema() == SCHEMA


def test_it_accepts_the_contract_example(contract: str) -> None:
    assert [e.message for e in VALIDATOR.iter_errors(parse(contract).data)] == []


@pytest.mark.parametrize("kind", STARTERS)
def test_it_accepts_the_starters(kind: str) -> None:
    assert [e.message for e in VALIDATOR.iter_errors(parse(starter(kind)).data)] == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("column: ttft_ms\n", "colum: ttft_ms\n"),
        ("role: primary", "role: primry"),
        ("user_rct", "user_rtc"),
        ("  shared_state: false\n", ""),
        ("better: lower", "better: lower\n    margin: a lot"),
        ("logs/*.parquet", "a\n  last: 7 days"),
    ],
)
def test_it_refuses_what_is_wrong(small: str, old: str, new: str) -> None:
    assert VALIDATOR.is_valid(parse(small).data)
    assert not VALIDATOR.is_valid(parse(small.replace(old, new)).data)


def test_every_key_is_described() -> None:
    def properties(node: Any) -> Iterator[tuple[str, Any]]:
        if isinstance(node, dict):
            if isinstance(node.get("properties"), dict):
                yield from node["properties"].items()
            for value in node.values():
                yield from properties(value)
        elif isinstance(node, list):
            for value in node:
                yield from properties(value)

    found = list(properties(SCHEMA))
    assert len(found) > 250
    assert [key for key, value in found if not value.get("description")] == []
    assert SCHEMA["$defs"]["Capacity"]["properties"]["window"]["default"] == "5m"


def test_defaults_and_bounds_are_an_editors() -> None:
    plan = json_schema()["$defs"]["Plan"]["properties"]
    assert plan["block"]["default"] == ["30m", "1h", "2h", "4h"]
    assert (plan["power"]["minimum"], plan["traffic"]["maximum"]) == (0.5, 1)
    assert not {"'ge':", "'gt':", "'le':", "'lt':"} & set(repr(json_schema()).replace("{", " ").split())
