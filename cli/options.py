"""Options that several commands share. Each has an environment variable; an option on the line wins over it."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated

import typer

FORMATS = ("text", "json", "markdown", "github")
ENGINES = ("polars", "spark")


def one_of(value: str, allowed: Sequence[str]) -> str:
    """``value`` if it is one of ``allowed``, else a usage error that names the nearest."""
    if value in allowed:
        return value
    near = get_close_matches(value, allowed, 1)
    meant = f"; did you mean {near[0]!r}?" if near else ""
    raise typer.BadParameter(f"{value!r} is none of {', '.join(allowed)}{meant}")


def parse_time(text: str) -> datetime:
    """An ISO 8601 date or time; without a zone it is UTC."""
    try:
        moment = datetime.fromisoformat(text.strip())
        if moment.year < 1000:
            raise ValueError("a year below 1000 is a slip of the keyboard here")
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise typer.BadParameter(f"{text!r} is not a time; expected ISO 8601, such as 2026-10-19T00:00Z") from None


def parse_seed(text: str) -> int:
    """A whole number from 0 up."""
    if not (text.isascii() and text.isdigit()):
        raise typer.BadParameter(f"{text!r} is not a seed; expected a whole number from 0 up")
    return int(text)


def parse_count(text: str) -> int:
    """A whole number from 1 up; ``120_000`` is one."""
    digits = text.replace("_", "")
    if not (digits.isascii() and digits.isdigit() and int(digits) > 0):
        raise typer.BadParameter(f"{text!r} is not a count; expected a whole number from 1 up")
    return int(digits)


def parse_days(text: str) -> float:
    """A positive, finite number of days."""
    try:
        days = float(text)
    except ValueError:
        days = float("nan")
    if not 0 < days < float("inf"):
        raise typer.BadParameter(f"{text!r} is not a number of days; expected a number above 0")
    return days


def parse_actions(text: str) -> frozenset[str]:
    """Comma-separated decisions, each of them one that a readout can take."""
    from readout.results import ACTIONS

    return frozenset(one_of(action.strip(), ACTIONS) for action in text.split(",") if action.strip())


def _choice(allowed: Sequence[str]) -> Callable[[str], str]:
    return lambda value: one_of(value, allowed)


def _overrides(given: list[str] | None) -> list[str]:
    """The overrides of the line, else those of READOUT_SET, one a line since a value may hold spaces."""
    return list(given or ()) or [line for line in os.environ.get("READOUT_SET", "").splitlines() if line.strip()]


SpecArgument = Annotated[Path, typer.Argument(metavar="SPEC", help="The experiment's spec, a YAML file.")]
Out = Annotated[
    Path,
    typer.Option(
        "--out", "-o", envvar="READOUT_OUT", metavar="DIR", file_okay=False, writable=True,
        help="Folder that memos are written under.",
    ),
]  # fmt: skip
AsOf = Annotated[
    datetime | None,
    typer.Option(
        "--as-of", envvar="READOUT_AS_OF", metavar="TIME", parser=parse_time,
        help="The time the readout is made for; default now. Fixes `last:` windows.",
    ),
]  # fmt: skip
Format = Annotated[
    str,
    typer.Option(
        "--format", "-f", envvar="READOUT_FORMAT", metavar="|".join(FORMATS), callback=_choice(FORMATS),
        autocompletion=lambda: list(FORMATS), help="What goes to stdout.",
    ),
]  # fmt: skip
FailOn = Annotated[
    frozenset[str] | None,
    typer.Option(
        "--fail-on", envvar="READOUT_FAIL_ON", metavar="ACTION[,ACTION...]", parser=parse_actions,
        help="Exit with 1 if the decision is one of these.",
    ),
]  # fmt: skip
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", callback=_overrides,
        help="Override a dotted key of the spec; repeatable.  [env var: READOUT_SET, one a line]",
    ),
]  # fmt: skip
Seed = Annotated[
    int | None,
    typer.Option("--seed", envvar="READOUT_SEED", metavar="N", parser=parse_seed, help="Seed of all that is random."),
]
Engine = Annotated[
    str,
    typer.Option(
        "--engine", envvar="READOUT_ENGINE", metavar="|".join(ENGINES), callback=_choice(ENGINES),
        autocompletion=lambda: list(ENGINES), help="What reduces the logs.",
    ),
]  # fmt: skip
NoFigures = Annotated[
    bool, typer.Option("--no-figures", envvar="READOUT_NO_FIGURES", help="Write no figures, which saves a second.")
]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", envvar="READOUT_QUIET", help="No progress and no notes on stderr.")
]
