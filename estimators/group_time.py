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
        spare: ``(k, m)`` contributions, of variance alone, that stand for the treated units of small cohorts; products
            add up to (co)variances.
        spare_level: ``(k, m)`` the same of the treated units' outcomes themselves.
        spare_cohort: ``(k,)`` the cohort whose groups tell that variance.
        borrowed: Labels of the small cohorts.
    """

    panel: Panel
    group: Codes
    period: Codes
    effect: Vector
    influence: Matrix
    skipped: tuple[tuple[str, str], ...]
    largest_propensity: float
    spare: Matrix
    spare_level: Matrix
    spare_cohort: Codes
    borrowed: tuple[str, ...]

    def cohorts(self, codes: Codes) -> Codes:
        """Cohorts of the independent groups, and of the contributions that stand for small cohorts."""
        return np.concatenate([self.panel.cohorts(codes), self.spare_cohort])

    @property
    def event_time(self) -> Codes:
        """``(m,)`` periods since the cohort's start."""
        return np.asarray(self.period - self.group, dtype=np.intp)


def group_time(
    panel: Panel, *, controls: str = "never", base: str = "varying", small: int = 0, unbiased: bool = False
) -> GroupTime:
    """Effects of every cohort in every period but the first.

    Args:
        panel: Units over periods. A comparison uses the units that were seen in both of its periods.
        controls: ``never``: units not treated within the window; ``not_yet``: also those treated later.
        base: Period that a period before treatment is compared with. ``varying``: the one before it, so that each
            effect is a placebo of its own; ``universal``: the last before treatment, as after it.
        small: Cohorts of fewer independent groups than this are taken to vary as their controls do. A cohort's own
            deviations tell too little of its variance where its groups are few, and nothing where it is one.
        unbiased: Whether variances of ``m`` independent groups of a cohort are divided by ``m - 1``; the paper's, and
            those of its packages, by ``m``.

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
    lender = _Lender(panel, small)
    for g in panel.groups:
        for t in range(0 if base == "universal" else 1, last):
            before = g - 1 if t >= g or base == "universal" else t - 1
            if before == t:
                found.append((g, t, 0.0, np.zeros(n)))
                lender.nothing(g)
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
            if lender.lends(g, panel.first[sample], t, before, sample):
                influence[panel.first == g] = 0.0
            largest = max(largest, result.largest_propensity)
            found.append((g, t, result.effect, influence))
    if not any(t >= g for g, t, _, _ in found):
        raise EstimationError("no treated unit has a control in any period of its treatment")
    group, period, effect, influences = zip(*found, strict=True)
    influence = np.column_stack(influences)
    if unbiased:
        sizes = np.maximum(lender.sizes[panel.first], 2).astype(np.float64)
        influence *= np.sqrt(sizes / (sizes - 1.0))[:, None]
    return GroupTime(
        panel,
        np.array(group, dtype=np.intp),
        np.array(period, dtype=np.intp),
        np.array(effect),
        influence,
        tuple(skipped),
        largest,
        *lender.spare(group),
    )


class _Lender:
    """Variance of small cohorts' treated means, lent by their controls: that of as many control groups' mean."""

    def __init__(self, panel: Panel, small: int) -> None:
        self._panel = panel
        self._codes, _ = panel.error_groups()
        self._groups = int(self._codes.max()) + 1
        self.sizes = np.bincount(panel.cohorts(self._codes), minlength=panel.y.shape[1] + 1)
        self._small = {g: int(self.sizes[g]) for g in panel.groups if self.sizes[g] < small}
        # The cohort whose size says how well the controls tell the variance.
        self._lends = int(self.sizes.size - 1 if self.sizes[-1] else self.sizes.argmax())
        self._columns: list[tuple[int, Vector, Vector]] = []

    def nothing(self, g: int) -> None:
        """An effect that is zero by construction."""
        self._columns.append((g, np.zeros(self._groups), np.zeros(self._groups)))

    def lends(self, g: int, first: Codes, t: int, before: int, sample: NDArray[Any]) -> bool:
        """Take note of a cohort's effect; whether the cohort borrows its variance."""
        if g not in self._small:
            self.nothing(g)
            return False
        control = sample[first != g]
        codes = self._codes[control]
        rows = np.bincount(codes, minlength=self._groups).astype(np.float64)
        seen = rows > 0
        if seen.sum() < 2:
            raise EstimationError(
                f"units treated from {self._panel.periods[g]} have one control, so nothing tells how they vary"
            )
        found = []
        for values in (self._panel.y[control, t] - self._panel.y[control, before], self._panel.y[control, t]):
            sums = np.bincount(codes, weights=values - values.mean(), minlength=self._groups)
            means = np.divide(sums, rows, out=np.zeros(self._groups), where=seen)
            found.append(means / np.sqrt((seen.sum() - 1.0) * self._small[g]))
        self._columns.append((g, found[0], found[1]))
        return True

    def spare(self, group: tuple[int, ...]) -> tuple[Matrix, Matrix, Codes, tuple[str, ...]]:
        """``spare``, ``spare_level``, ``spare_cohort`` and ``borrowed`` of the cohort-periods in this order."""
        small = [g for g in self._small if g in group]
        m, k = len(group), self._groups
        change, level = np.zeros((len(small) * k, m)), np.zeros((len(small) * k, m))
        for j, (g, own, own_level) in enumerate(self._columns):
            if g in small:
                place = slice(small.index(g) * k, (small.index(g) + 1) * k)
                change[place, j], level[place, j] = own, own_level
        some = (change != 0.0).any(axis=1) | (level != 0.0).any(axis=1)
        labels = tuple(self._panel.periods[g] for g in small)
        return change[some], level[some], np.full(int(some.sum()), self._lends, dtype=np.intp), labels


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
