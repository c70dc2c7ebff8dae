"""The kinds of value that a spec holds, each with its parser and its JSON Schema.

A parser takes plain YAML data and gives a typed value; what it refuses, it refuses in one sentence that says what was
expected.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, ClassVar
from zoneinfo import ZoneInfo

from pydantic import BeforeValidator, ConfigDict, Field, PlainValidator, StrictBool, ValidationInfo, WithJsonSchema
from pydantic_core import PydanticCustomError

from readout.spec.problems import label, show

DAY = timedelta(days=1)


class Section:
    """A mapping of the spec; a key that it does not declare is an error."""

    __slots__ = ()
    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")


@dataclass(frozen=True, slots=True)
class Effect:
    """A size of effect.

    Attributes:
        value: In the metric's unit, or a fraction of control's value where ``relative``.
        relative: Whether it was given in per cent.
        text: As written: ``5%``.
    """

    value: float
    relative: bool
    text: str


@dataclass(frozen=True, slots=True, eq=False)
class Shorthand:
    """Lets a section be written shorter: ``expand`` makes the mapping of a short form and leaves a mapping alone."""

    expand: Callable[[Any], Any]
    schema: Mapping[str, Any]

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema

        return core_schema.no_info_before_validator_function(self.expand, handler(source))

    def __get_pydantic_json_schema__(self, core_schema: Any, handler: Any) -> dict[str, Any]:
        return {"anyOf": [dict(self.schema), handler(core_schema["schema"])]}


def refuse(expected: str, got: object, hint: str = "") -> PydanticCustomError:
    """The error of a parser: what was expected, what stands there."""
    return PydanticCustomError("expected", "{text}", {"text": f"expected {expected}, got {show(got)}", "hint": hint})


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        hint = "put it in quotes" if isinstance(value, bool | int | float) else ""
        raise refuse("text", value, hint)
    return value


def _prose(value: Any) -> str:
    if not isinstance(value, str):
        raise refuse("text", value, "put it in quotes" if isinstance(value, bool | int | float) else "")
    return value


def _label(value: Any) -> str:
    if not isinstance(value, str | bool | int | float) or value == "":
        raise refuse("a label", value)
    return label(value)


def _labels(value: Any) -> tuple[str, ...]:
    found = tuple(_label(item) for item in (value if isinstance(value, list) else [value]))
    if not found:
        raise refuse("a label or a list of labels", value, "the list is empty")
    if twice := [name for i, name in enumerate(found) if name in found[:i]]:
        raise PydanticCustomError("expected", "{text}", {"text": f"{show(twice[0])} stands twice in the list"})
    return found


def _one_or_list(value: Any) -> Any:
    if not isinstance(value, str | list):
        raise refuse("text or a list of text", value)
    return [value] if isinstance(value, str) else value


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise refuse("a number", value)
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise refuse("a finite number", value)
    return number


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise refuse("a whole number", value)
    return value


_DURATION = re.compile(r"(\d{1,9}(?:\.\d{1,6})?) ?([smhd])", re.ASCII)
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def parse_duration(value: Any) -> timedelta:
    """``30s``, ``20m``, ``2h`` or ``7d``."""
    found = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if not found:
        raise refuse("a duration such as 30s, 20m, 2h or 7d", value)
    seconds = float(found[1]) * _SECONDS[found[2]]
    if seconds > 100 * 366 * 86400:
        raise refuse("a duration of at most a hundred years", value)
    return timedelta(seconds=seconds)


def _positive_duration(value: Any) -> timedelta:
    duration = parse_duration(value)
    if not duration:
        raise refuse("a duration above zero", value)
    return duration


def _block_length(value: Any) -> timedelta:
    length = _positive_duration(value)
    if DAY % length and length % DAY:
        raise refuse("a length that divides 24 h, or whole days", value, "such as 1h, 2h, 3h, 4h, 6h, 8h, 12h or 1d")
    return length


def _washout(value: Any) -> timedelta:
    return timedelta(0) if value == "none" else parse_duration(value)


_TIME = re.compile(
    r"\d{4}-\d\d-\d\d(?:[Tt ]\d\d:\d\d(?::\d\d(?:\.\d{1,6})?)?(?: ?Z| ?[+-]\d\d(?::?\d\d)?)?)?", re.ASCII
)


def _time(value: Any, info: ValidationInfo) -> datetime | int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if not isinstance(value, str) or not _TIME.fullmatch(value):
        raise refuse("a time such as 2026-10-05T00:00Z or a date such as 2026-10-05", value)
    zone = (info.context or {}).get("timezone", UTC)
    try:
        time = datetime.fromisoformat(value.replace(" Z", "Z").replace(" +", "+").replace(" -", "-").upper())
        return (time if time.tzinfo else time.replace(tzinfo=zone)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise refuse("a time that the calendar has", value) from None


def _pre_period(value: Any, info: ValidationInfo) -> timedelta | tuple[datetime | int, datetime | int]:
    if isinstance(value, list) and len(value) == 2:
        start, end = (_time(item, info) for item in value)
        if type(start) is not type(end) or start >= end:  # type: ignore[operator]
            raise refuse("a start before an end", value)
        return start, end
    if isinstance(value, list):
        raise refuse("a duration such as 14d, or a pair of times", value)
    return _positive_duration(value)


def _timezone(value: Any) -> str:
    name = _text(value)
    try:
        ZoneInfo(name)
    except (ValueError, OSError, KeyError):
        raise refuse("a time zone such as UTC or Europe/Berlin", value) from None
    return name


_EFFECT = re.compile(r"([-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?) ?(%?)", re.ASCII)


def parse_effect(value: Any) -> Effect:
    """A number, or text such as ``5%``. The sign stays: only the metric knows whether it agrees with ``better``."""
    text = value.strip() if isinstance(value, str) else label(value)
    found = _EFFECT.fullmatch(text) if not isinstance(value, bool) and len(text) < 40 else None
    number = float(found[1]) if found else math.nan
    if not found or not math.isfinite(number):
        raise refuse("a size of effect, absolute such as 25 or relative such as 5%", value)
    return Effect(number / 100 if found[2] else number, bool(found[2]), text.replace(" ", ""))


def _split(value: Any) -> dict[str, float]:
    if not isinstance(value, dict) or not value:
        raise refuse("a share for each arm, such as {current: 0.5, premium: 0.5}", value)
    shares = {arm: _number(share) for arm, share in value.items()}
    if any(share < 0 for share in shares.values()) or sum(shares.values()) <= 0:
        raise refuse("shares of at least 0, one of them above 0", list(shares), "shares are normalised to sum to 1")
    largest = max(shares.values())
    total = sum(share / largest for share in shares.values())
    return {arm: share / largest / total for arm, share in shares.items()}


def _probability(value: Any) -> str | dict[str, str]:
    if isinstance(value, dict) and value:
        return {str(action): _text(column) for action, column in value.items()}
    if isinstance(value, str) and value.strip():
        return value
    raise refuse("a column, or a column for each action such as {standard: p_standard, premium: p_premium}", value)


_FORBIDDEN = re.compile(r'[\\/:*?"<>|\x00-\x1f\x7f-\x9f]')


def parse_name(value: Any) -> str:
    """A name that can be a folder on every system."""
    name = _text(value)
    if _FORBIDDEN.search(name) or name.startswith((".", " ")) or name.endswith((".", " ")) or len(name) > 100:
        hint = (
            "the memo's folder bears it: at most 100 characters, none of \\ / : * ? \" < > |, no dot or space at an end"
        )
        raise refuse("a name that can be a folder", value, hint)
    return name


_SCALAR: dict[str, Any] = {"type": ["string", "number", "boolean"]}
_DURATION_SCHEMA = {"type": "string", "pattern": r"^\d+(\.\d+)? ?[smhd]$", "examples": ["20m", "2h", "7d"]}

Text = Annotated[str, BeforeValidator(_text), Field(min_length=1)]
Prose = Annotated[str, BeforeValidator(_prose)]
Column = Text
Sql = Text
Name = Annotated[str, BeforeValidator(parse_name), Field(min_length=1)]
Columns = Annotated[
    tuple[Column, ...],
    Shorthand(_one_or_list, {"type": "string", "minLength": 1}),
]
SomeColumns = Annotated[
    tuple[Column, ...],
    Field(min_length=1),
    Shorthand(_one_or_list, {"type": "string", "minLength": 1}),
]
Label = Annotated[str, PlainValidator(_label), WithJsonSchema(_SCALAR)]
Labels = Annotated[
    tuple[str, ...],
    PlainValidator(_labels),
    WithJsonSchema({"anyOf": [_SCALAR, {"type": "array", "items": _SCALAR, "minItems": 1, "uniqueItems": True}]}),
]
PolicyProbability = Annotated[
    str | dict[str, str],
    PlainValidator(_probability),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "minLength": 1},
                {"type": "object", "additionalProperties": {"type": "string", "minLength": 1}, "minProperties": 1},
            ]
        }
    ),
]
Flag = StrictBool
Number = Annotated[float, BeforeValidator(_number)]
Positive = Annotated[float, Field(gt=0), BeforeValidator(_number)]
NotNegative = Annotated[float, Field(ge=0), BeforeValidator(_number)]
Fraction = Annotated[float, Field(gt=0, lt=1), BeforeValidator(_number)]
Whole = Annotated[int, Field(ge=0), BeforeValidator(_whole)]
Count = Annotated[int, Field(ge=1), BeforeValidator(_whole)]
Duration = Annotated[timedelta, PlainValidator(_positive_duration), WithJsonSchema(_DURATION_SCHEMA)]
BlockLength = Annotated[timedelta, PlainValidator(_block_length), WithJsonSchema(_DURATION_SCHEMA)]
Offset = Annotated[timedelta, PlainValidator(parse_duration), WithJsonSchema(_DURATION_SCHEMA)]
Washout = Annotated[
    timedelta, PlainValidator(_washout), WithJsonSchema({"anyOf": [_DURATION_SCHEMA, {"const": "none"}]})
]
Time = Annotated[
    datetime | int,
    PlainValidator(_time),
    WithJsonSchema({"type": ["string", "integer"], "examples": ["2026-10-05T00:00Z", "2026-10-05"]}),
]
PrePeriod = Annotated[
    timedelta | tuple[datetime | int, datetime | int],
    PlainValidator(_pre_period),
    WithJsonSchema({"anyOf": [_DURATION_SCHEMA, {"type": "array", "minItems": 2, "maxItems": 2}]}),
]
Timezone = Annotated[str, BeforeValidator(_timezone)]
EffectSize = Annotated[
    Effect,
    PlainValidator(parse_effect),
    WithJsonSchema(
        {"anyOf": [{"type": "number"}, {"type": "string", "pattern": r"^[-+]?[0-9.]+([eE][-+]?\d+)? ?%?$"}]}
    ),
]
Split = Annotated[
    dict[str, float],
    PlainValidator(_split),
    WithJsonSchema({"type": "object", "additionalProperties": {"type": "number", "minimum": 0}, "minProperties": 1}),
]
