"""Winsorizing where whole clusters or blocks are randomized: the value of each is capped where all arms share the cap.

A cluster's or cell's value is its mean over rows, or over units of a sum within a unit; it keeps its weight. A ratio's
numerator and denominator are capped each, as they are by unit. Sums by arm, and what economics make of them, stay raw.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from estimators.estimate import Estimate
from estimators.winsorized import Caps, Vector, cut
from readout.errors import SpecError
from readout.samples import robust
from readout.spec.model import Spec
from readout.terms import Term

Mask = NDArray[np.bool_]
Sums = tuple[Vector, Vector]


@dataclass(frozen=True, slots=True, eq=False)
class Capped:
    """Sums by cluster or cell, capped and raw.

    Attributes:
        sums: Capped numerators and denominators, in the order of the raw ones.
        raw: The raw ones.
        caps: Of the value, or of a ratio's numerator and denominator.
    """

    sums: Sums
    raw: Sums
    caps: tuple[Caps, Caps | None]

    def estimated(self, by: Callable[[Vector, Vector], Estimate], control: Mask, treatment: Mask) -> Estimate:
        """The design's estimate from the capped sums; the one from the raw sums, and what was capped, beside it.

        Raises:
            EstimationError: As the design's estimator.
        """
        found, plain = by(*self.sums), by(*self.raw)
        shown = cut(self._values(control), self._values(treatment), self.caps)
        beside = {"plain_estimate": plain.estimate, "plain_std_error": plain.std_error}
        return replace(found, diagnostics={**found.diagnostics, **shown, **beside})

    def _values(self, which: Mask) -> tuple[Vector, Vector | None]:
        num, den = (sums[which] for sums in self.raw)
        if self.caps[1] is not None:
            return num, den
        return num[den > 0.0] / den[den > 0.0], None


def capped(term: Term, num: Vector, den: Vector, has_value: Mask) -> Capped:
    """The sums of a winsorized metric, with caps pooled over all arms.

    Args:
        num, den: ``(n,)`` by cluster or cell.
        has_value: Those with a row that has a value.

    Raises:
        EstimationError: None has one, or one is not finite.
    """
    assert term.robust is not None
    if term.den is not None:
        caps = robust.caps(term.robust, [(num[has_value], den[has_value])])
        return Capped(robust.both(robust.capped((num, den), caps)), (num, den), caps)
    keep = has_value & (den > 0.0)
    caps = robust.caps(term.robust, [(num[keep] / den[keep], None)])
    cut_num = num.copy()
    cut_num[keep] = caps[0].apply(num[keep] / den[keep]) * den[keep]
    return Capped((cut_num, den), (num, den), caps)


def require(spec: Spec, unit: str) -> None:
    """Refuse robust means that compare independent units one by one.

    Raises:
        SpecError: All such metrics.
    """
    problems = []
    for name, metric in spec.metrics.items():
        if metric.robust is not None and metric.robust.method != robust.WINSORIZE:
            message = f"{robust.NAMES[metric.robust.method]} needs many independent units, and {unit}s are few"
            hint = "take winsorize, or compare a quantile"
            problems.append(spec.source.problem(("metrics", name, "robust"), message, hint))
    if problems:
        raise SpecError(problems)
