"""What checks share: thresholds from the spec, and how a number reads in a message."""

from __future__ import annotations

from collections.abc import Sequence

from readout.spec.model import Spec


def threshold(spec: Spec, name: str, default: float) -> float:
    """The spec's threshold for a check, else the contract's."""
    given = spec.checks.get(name)
    return default if given is None or given.threshold is None else given.threshold


def share(part: float, whole: float) -> float:
    """``part / whole``, zero where there is no whole."""
    return part / whole if whole else 0.0


def percent(value: float) -> str:
    """A share as a percentage with the digits that matter."""
    return f"{100 * value:.3g} %"


def listing(names: Sequence[str]) -> str:
    """Names in one sentence."""
    quoted = [f"{n!r}" for n in names]
    return quoted[0] if len(quoted) == 1 else ", ".join(quoted[:-1]) + " and " + quoted[-1]
