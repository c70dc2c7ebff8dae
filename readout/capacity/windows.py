"""Windows after the pass: which are over the limit, and how the arms compare in them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import polars as pl

from estimators.confidence_sequence import confidence_sequence
from estimators.estimate import Estimate
from estimators.inference import EstimationError, t_interval
from estimators.moments import Moments
from readout.capacity.tables import SEEN, WINDOWS
from readout.errors import LogError
from readout.evidence import Evidence
from readout.samples import Blocks, Clusters
from readout.spec.model import Capacity
from readout.text import visible

# A share that so few randomized units give rise to has no symmetric interval.
FEW = 10
_EFFECT = (
    "estimate", "std_error", "df", "p_value", "ci_low", "ci_high", "control_value", "treatment_value", "n_control",
    "n_treatment",
)  # fmt: skip


@dataclass(frozen=True)
class Windows:
    """The windows that were seen, one a row.

    Attributes:
        evidence: What the pass gave.
        capacity: The spec's section.
        frame: ``window`` (start, µs), ``load`` (largest), ``over``, ``excess`` above the limit (zero where not over),
            sums of outcomes; with ``cluster``, and ``arm``, ``unit`` (the one that was randomized) and ``block`` as the
            design has them. Sorted by its keys.
        unseen: Windows whose rows bear no load.
    """

    evidence: Evidence
    capacity: Capacity
    frame: pl.DataFrame
    unseen: int

    @cached_property
    def sample(self) -> Blocks | Clusters | None:
        """The sample whose units the pools are; None where units within a pool are randomized."""
        sample = self.evidence.sample
        return sample if isinstance(sample, Blocks | Clusters) else None

    @property
    def over(self) -> pl.DataFrame:
        """The windows over the limit."""
        return self.frame.filter("over")

    def by_arm(self, value: pl.Expr, where: pl.Expr | None = None) -> dict[str, int]:
        """A sum over windows by arm; empty where the windows belong to no arm."""
        if "arm" not in self.frame.columns:
            return {}
        frame = self.frame if where is None else self.frame.filter(where)
        sums = frame.group_by("arm").agg(value.sum().alias("v"))
        found = dict(sums.iter_rows())
        return {arm: int(found.get(code, 0)) for code, arm in enumerate(self.evidence.arms)}

    def units(self, arm: int) -> tuple[int, int]:
        """Randomized units of an arm with a window over the limit, and all whose windows were seen."""
        mine = self.frame.filter(pl.col("arm") == arm).group_by("unit").agg(pl.col("over").any())
        return int(mine["over"].sum()), len(mine)

    def effect(self, sums: pl.DataFrame, arm: int) -> Estimate:
        """The effect of an arm on ``num / den`` of cells, by the design's own estimator; its interval and p-value are
        always-valid under sequential looks.

        Raises:
            EstimationError: The cells cannot carry it.
        """
        if self.sample is None:
            raise EstimationError("both arms meet the same windows")
        decision = self.evidence.spec.decision
        found = self.sample.effect_of(sums, arm, decision.alpha)
        if not self.evidence.sequential:
            return found
        return confidence_sequence(found, alpha=decision.alpha, tuning=decision.tuning)

    def cells(self, frame: pl.DataFrame, num: pl.Expr, den: pl.Expr, rows: pl.Expr | None = None) -> pl.DataFrame:
        """Sums of rows of ``frame`` by the sample's cells."""
        assert self.sample is not None
        keys = [*self.sample.level_keys(), "unit"]
        sums = {"num": num.cast(pl.Float64).sum(), "den": den.cast(pl.Float64).sum()}
        rows = (den if rows is None else rows).cast(pl.Float64).sum()
        return frame.group_by(keys, maintain_order=True).agg(**sums, rows=rows).filter(pl.col("rows") > 0)

    def quantity(self, cells: pl.DataFrame, scale: float = 1.0) -> dict[str, Any]:
        """A ratio of sums by arm, each with its interval over randomized units, and its effects.

        The effect of the first treatment stands at the top, those of all under ``effects``; what cannot be estimated
        is None, with the reason.
        """
        effects = {}
        for arm in self.evidence.treatments:
            found: dict[str, Any] = dict.fromkeys(_EFFECT)
            try:
                estimate = self.effect(cells, arm)
                found |= {name: getattr(estimate, name) for name in _EFFECT} | {"reason": ""}
                for name in ("estimate", "std_error", "ci_low", "ci_high", "control_value", "treatment_value"):
                    found[name] *= scale
            except EstimationError as error:
                found["reason"] = str(error)
            effects[self.evidence.arms[arm]] = found
        by_arm = {arm: self._arm(cells.filter(pl.col("arm") == i), scale) for i, arm in enumerate(self.evidence.arms)}
        return {"by_arm": by_arm, **effects[self.evidence.arms[1]], "effects": effects}

    def _arm(self, cells: pl.DataFrame, scale: float) -> dict[str, float | None]:
        """An arm's ratio; its interval rests on randomized units as independent draws of what the arm would meet.

        It holds at one look, so there is none under sequential looks.
        """
        nothing: dict[str, float | None] = {"value": None, "ci_low": None, "ci_high": None}
        units = cells.group_by("unit", maintain_order=True).agg(pl.col("num", "den").sum())
        if not units["den"].sum() > 0:
            return nothing
        moments = Moments.from_arrays(units["num"], units["den"])
        nothing["value"] = scale * moments.value
        error = math.sqrt(moments.value_variance) if moments.n > 1 else 0.0
        if not error > 0.0 or self.evidence.sequential:
            return nothing
        low, high = t_interval(moments.value, error, moments.n - 1.0, self.evidence.spec.decision.alpha)
        return {"value": scale * moments.value, "ci_low": scale * low, "ci_high": scale * high}

    def share_over(self) -> pl.DataFrame:
        """Cells of the share of windows over the limit."""
        return self.cells(self.frame, pl.col("over"), pl.col("one"))


def windows_of(evidence: Evidence) -> Windows:
    """The windows of an evidence whose spec has a capacity."""
    return evidence.once(WINDOWS, lambda: _windows(evidence))


def _windows(evidence: Evidence) -> Windows:
    capacity = evidence.spec.capacity
    assert capacity is not None
    frame = evidence.tables[WINDOWS]
    sample = evidence.sample
    if isinstance(sample, Blocks | Clusters):
        frame = sample.belonging(frame)
    over = pl.col("load") > capacity.limit
    excess = pl.when(over).then(pl.col("load") - capacity.limit).otherwise(0.0)
    seen = frame.filter(pl.col("load").is_not_null()).with_columns(over=over, excess=excess, one=pl.lit(1.0))
    return Windows(evidence, capacity, seen, len(frame) - len(seen))


def require_windows(evidence: Evidence) -> None:
    """Refuse a load that no kept row bears.

    Raises:
        LogError: Every one is null.
    """
    capacity = evidence.spec.capacity
    if capacity is None or int(evidence.tables[WINDOWS][SEEN].sum()):
        return
    n = evidence.total("n")
    message = f"each of the {n:,} kept rows is null in {visible(capacity.load)!r}; expected numbers"
    raise LogError([evidence.spec.source.problem(("capacity", "load"), message)])
