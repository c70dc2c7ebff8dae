"""Commented specs to start from, one for each design."""

from __future__ import annotations

from importlib.resources import files

from readout.errors import Problem, SpecError
from readout.spec.problems import listing, show, suggest

STARTERS: tuple[str, ...] = (
    "user_rct",
    "request_rct",
    "cluster_rct",
    "switchback",
    "observational",
    "did",
    "synthetic_control",
    "iv",
    "rdd",
    "ope",
)


def starter(kind: str) -> str:
    """The YAML text of a commented spec that runs as it is on a bundled sample log.

    Args:
        kind: A ``design.kind``.

    Raises:
        SpecError: There is no such design.
    """
    if kind not in STARTERS:
        message = f"expected one of {listing(STARTERS)}, got {show(kind)}{suggest(kind, STARTERS)}"
        raise SpecError([Problem("--design", message)])
    return (files("readout.spec") / "starters" / f"{kind}.yaml").read_text(encoding="utf-8")
