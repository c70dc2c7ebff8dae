"""Effects of treatment by cohort and period, each against units that are not treated by then.

Estimand: ``ATT(g, t)``, the effect in period ``t`` on units first treated in period ``g``. Identified where, without
treatment, the cohort would have changed as its controls did (given covariates), and nobody acts before treatment.
Source: Callaway and Sant'Anna (2021), *Difference-in-differences with multiple time periods*, theorem 1 and eq. 2.6
to 2.9, estimated by ``doubly_robust_change``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from estimators.doubly_robust_change import doubly_robust_change
from estimators.inference import EstimationError
from estimators.panel import Codes, Matrix, Panel, Vector

CONTROLS = ("never", "not_yet")
BASES = ("varying", "universal")


@dataclass(frozen=True, slots=True, eq=False)
class GroupTime:
    """One entry per cohort and period.

    Attributes:
        panel: The units that were compared.
        group, period: ``(m,)`` positions of the cohort's first treated period and of the period itself.
        effect: ``(m,)`` effects in the outcome's unit; 0 in the reference period of a universal base.
        influence: ``(n, m)`` influence functions; products over ``n^2`` add up to (co)variances.
        skipped: Labels ``(cohort, period)`` of effects that no control or no treated unit was seen for.
        largest_propensity: Greatest fitted probability of treatment among controls.
    """

    panel: Panel
    group: Codes
    period: Codes
    effect: Vector
    influence: Matrix
    skipped: tuple[tuple[str, str], ...]
    largest_propensity: float

    @property
    def event_time(self) -> Codes:
        """``(m,)`` periods since the cohort's start."""
        return np.asarray(self.period - self.group, dtype=np.intp)


def group_time(panel: Panel, *, controls: str = "never", base: str = "varying") -> GroupTime:
    """Effects of every cohort in every period but the first.

    Args:
        panel: Units over periods. A comparison uses the units that were seen in both of its periods.
        controls: ``never``: units not treated within the window; ``not_yet``: also those treated later.
        base: Period that a period before treatment is compared with. ``varying``: the one before it, so that each
            effect is a placebo of its own; ``universal``: the last before treatment, as after it.

    Raises:
        EstimationError: No unit starts within the window, no unit can serve as control, or as
            ``doubly_robust_change``, with the cohort and the period named.
    """
    if controls not in CONTROLS or base not in BASES:
        raise ValueError(f"controls must be one of {CONTROLS}, base one of {BASES}")
    panel = panel.comparable()
    n, last = panel.y.shape
    if controls == "never" and not (panel.first == last).any():
        raise EstimationError("no unit stays untreated; take units that are not yet treated as controls (not_yet)")
    found: list[tuple[int, int, float, Vector]] = []
    skipped: list[tuple[str, str]] = []
    largest = 0.0
    for g in panel.groups:
        for t in range(0 if base == "universal" else 1, last):
            before = g - 1 if t >= g or base == "universal" else t - 1
            if before == t:
                found.append((g, t, 0.0, np.zeros(n)))
                continue
            sample = _sample(panel, g, t, before, controls)
            if sample is None:
                skipped.append((panel.periods[g], panel.periods[t]))
                continue
            x = None if panel.covariates is None else panel.covariates[sample]
            change = panel.y[sample, t] - panel.y[sample, before]
            try:
                result = doubly_robust_change(change, panel.first[sample] == g, x)
            except EstimationError as e:
                raise EstimationError(f"units treated from {panel.periods[g]}, period {panel.periods[t]}: {e}") from e
            influence = np.zeros(n)
            influence[sample] = result.influence * (n / len(sample))
            largest = max(largest, result.largest_propensity)
            found.append((g, t, result.effect, influence))
    if not any(t >= g for g, t, _, _ in found):
        raise EstimationError("no treated unit has a control in any period of its treatment")
    group, period, effect, influences = zip(*found, strict=True)
    return GroupTime(
        panel,
        np.array(group, dtype=np.intp),
        np.array(period, dtype=np.intp),
        np.array(effect),
        np.column_stack(influences),
        tuple(skipped),
        largest,
    )


def _sample(panel: Panel, g: int, t: int, before: int, controls: str) -> NDArray[Any] | None:
    """Positions of a comparison's units; None where one side is empty."""
    control = panel.first == panel.y.shape[1]
    if controls == "not_yet":
        control = control | ((panel.first > max(t, before)) & (panel.first != g))
    seen = np.isfinite(panel.y[:, t]) & np.isfinite(panel.y[:, before])
    treated = panel.first == g
    if not (treated & seen).any() or not (control & seen).any():
        return None
    return np.flatnonzero((treated | control) & seen)
