"""What a valid spec may ask for and this version does not have: an answer, never a wrong number."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from readout.errors import SpecError
from readout.spec.designs import BY_ROW, KINDS, PANELS
from readout.spec.model import Spec
from readout.spec.problems import Finding, KeyPath, sort_problems


@dataclass(frozen=True, slots=True)
class Later:
    """Something that comes later.

    Attributes:
        path: The key that asks for it; ``*`` stands for every name below.
        asked: Whether the value there asks for it.
        what: How the message names it; empty where the key says it.
        hint: What there is instead.
        designs: The kinds of design that it is about; empty: all.
    """

    path: str
    asked: Callable[[Any], bool] = bool
    what: str = ""
    hint: str = ""
    designs: tuple[str, ...] = ()


NOT_DRAWN = (*PANELS, *BY_ROW)
NOT_READ_BY_SEGMENT = NOT_DRAWN
WITHOUT_RULES = tuple(kind for kind in KINDS if kind != "ope")
LATER: tuple[Later, ...] = (
    Later(
        "decision.frame",
        lambda frame: frame == "rule",
        "the frame {value} in this design",
        "a rule that has not run is valued in the design ope; available here: ship, explain, target",
        WITHOUT_RULES,
    ),
    Later(
        "decision.looks",
        lambda looks: looks == "sequential",
        "sequential looks in this design",
        "looks: fixed",
        NOT_DRAWN,
    ),
    Later("decision.exposure", bool, "", "", NOT_DRAWN),
    Later("metrics.*.quantile", bool, "quantiles in this design", "", NOT_DRAWN),
    Later("metrics.*.robust", bool, "robust means in this design", "", NOT_DRAWN),
    Later(
        "design.treatment",
        lambda arms: len(arms) > 1,
        "several treatments in this design",
        "",
        (*PANELS, "iv", "rdd", "ope"),
    ),
    Later(
        "metrics.*.on",
        lambda on: on == "untreated",
        "untreated rows at a cutoff",
        "who is left untreated is decided by the cutoff: read a mean over all rows",
        ("rdd",),
    ),
    Later(
        "metrics.*.on",
        lambda on: on == "untreated",
        "untreated rows in this design",
        "whom the instrument leaves untreated it chooses: read a mean over all rows",
        ("iv",),
    ),
    Later(
        "metrics.*.per",
        lambda per: per == "unit",
        "sums within units in this design",
        "a unit's requests may meet either action: name the mean over rows (leave per out)",
        ("observational",),
    ),
    Later(
        "metrics.*.on",
        lambda on: on == "untreated",
        "a metric of untreated rows in this design",
        "treated is the executed action here, so the treatment has no such rows",
        ("observational",),
    ),
    Later(
        "metrics.*.per",
        lambda per: per == "unit",
        "sums within units in this design",
        "a policy's value is a mean over requests: name the mean over rows (leave per out)",
        ("ope",),
    ),
    Later(
        "metrics.*.on",
        lambda on: on == "untreated",
        "a metric of untreated rows in this design",
        "nothing has run under the target policy, so no row is treated",
        ("ope",),
    ),
    Later("segments", bool, "segments in this design", "read one at a time, with logs.where", NOT_READ_BY_SEGMENT),
    Later("report.html"),
)


def require_available(spec: Spec) -> None:
    """Refuse a spec that asks for what this version does not have.

    Raises:
        SpecError: Everything of that kind in the spec, each at its key: ``segments: not available yet``.
    """
    mine = [later for later in LATER if not later.designs or spec.design.kind in later.designs]
    findings = [finding for later in mine for finding in _asked(spec, later)]
    if spec.segments and spec.decision.looks == "sequential":
        hint = "looks: fixed; segments are read once, at the end"
        findings.append(Finding(("segments",), "segments under sequential looks: not available yet", hint))
    if findings:
        raise SpecError(sort_problems(spec.source, findings))


def _asked(spec: Spec, later: Later) -> Iterable[Finding]:
    for path, value in _values(spec, later.path.split("."), ()):
        if later.asked(value):
            what = later.what.format(value=value)
            message = f"{what}: not available yet" if what else "not available yet"
            yield Finding(path, message, later.hint, on_key=not what)


def _values(value: Any, parts: list[str], path: KeyPath) -> Iterable[tuple[KeyPath, Any]]:
    """Every value at a pattern, with its path; nothing where a part of the way is not in the spec."""
    if not parts:
        yield path, value
    elif isinstance(value, dict):
        for name in value if parts[0] == "*" else [parts[0]] if parts[0] in value else []:
            yield from _values(value[name], parts[1:], (*path, name))
    elif hasattr(value, parts[0]):
        yield from _values(getattr(value, parts[0]), parts[1:], (*path, parts[0]))
