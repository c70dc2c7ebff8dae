"""May the short run stand for a long-run outcome that is not in yet?"""

from __future__ import annotations

from typing import Final

from readout import long_run
from readout.checks.base import threshold
from readout.evidence import Evidence
from readout.memo import numbers
from readout.results import Check, Status
from readout.surrogates import LEAST_R2, Judged, foretold, judged
from readout.text import named

NAME: Final = "surrogate_evidence"
FAMILY: Final = "identification"
RISK: Final = "surrogate risk"


def surrogate_evidence(evidence: Evidence) -> Check:
    """Whether past experiments foretell the long-run effect from the short one.

    Passes where the slope's interval excludes zero, short effects explain enough of the variance of long ones (the
    threshold), left-out experiments are foretold better than by their mean, the present effect lies within the past
    ones, and nothing says that a good short effect goes with a bad long one. It asks for no decision of its own: rules
    on the long run read it.
    """
    if not long_run.metrics(evidence.spec):
        return Check(NAME, FAMILY, "skip", "no metric has the role long_run")
    by_arm: dict[str, Status] = {}
    said: list[str] = []
    worst: Judged | None = None
    for arm in evidence.treatments:
        label, found = evidence.arms[arm], judged(evidence, arm)
        if not found.awaited:
            return Check(NAME, FAMILY, "skip", "the long-run outcome is in: nothing has to stand for it")
        by_arm[label] = "pass" if found.holds else "fail"
        mark = f"{named(label)}: " if len(evidence.treatments) > 1 else ""
        said.append(mark + (_held(evidence, arm, found) if found.holds else f"{RISK}: {'; '.join(found.faults)}"))
        if worst is None or (worst.holds and not found.holds):
            worst = found
    status: Status = "fail" if "fail" in by_arm.values() else "pass"
    model = None if worst is None else worst.model
    return Check(
        NAME,
        FAMILY,
        status,
        "; ".join(said),
        statistic=None if model is None else model.line.t_of_none,
        p_value=None if model is None else model.p_value,
        value=None if model is None else model.r2,
        threshold=threshold(evidence.spec, NAME, LEAST_R2),
        details={"by_arm": by_arm} if len(by_arm) > 1 else {},
        short=RISK if status == "fail" else "",
    )


def _held(evidence: Evidence, arm: int, found: Judged) -> str:
    assert found.model is not None
    return (
        f"{foretold(evidence, arm)}; over {found.model.n} of them the short effect explains "
        f"{numbers.percent(found.model.r2)} of the variance of the long one"
    )
