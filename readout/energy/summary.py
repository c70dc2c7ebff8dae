"""Energy by arm for readout.json and the memo: sums over the kept rows of what was attributed before any filter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

from readout.checks.spillover import mixed_batches
from readout.energy.metered import ARMS, measured_share, uses_energy
from readout.energy.model import CARBON, ENERGY
from readout.energy.rows import COLD, MODELLED, RULES, SHARE, rule_column
from readout.energy.totals import Totals
from readout.evidence import Evidence
from readout.logs import Logs
from readout.reduce import Table
from readout.samples import Sample
from readout.spec.metrics import Metric
from readout.spec.model import Spec
from readout.terms import Term, eligible_only

SUCCESS, OF_KNOWN = "success", "energy of known success"
CAPACITY_STATE = (
    "energy is shared out of whole batches, so a request's part hangs on who else was in its batch: read it as an "
    "outcome of the state of shared capacity, not of the request alone"
)


def tables(spec: Spec, logs: Logs, sample: Sample, terms: Mapping[str, Term]) -> list[Table]:
    """Sums of energy over the rows that count, by arm."""
    if spec.attribution is None:
        return []
    counted = sample.rows & eligible_only(spec, logs)(pl.lit(True)).fill_null(False) & pl.col(SHARE).is_not_null()
    sums = {name: pl.col(name) for name in (SHARE, MODELLED, COLD, ENERGY, *map(rule_column, RULES))}
    if spec.attribution.carbon is not None:
        sums[CARBON] = pl.col(CARBON)
        sums["priced"] = pl.col(CARBON).is_not_null().cast(pl.Int8)
    if (success := _success(spec, terms)) is not None:
        sums[SUCCESS] = success
        sums[OF_KNOWN] = pl.when(success.is_not_null()).then(pl.col(ENERGY))
    return [Table(ARMS, {"arm": pl.col("@arm_code")}, counted, sums=sums)]


def summary(evidence: Evidence) -> dict[str, Any] | None:
    """The ``attribution`` of readout.json."""
    if evidence.attributed is None:
        return None
    totals, model = evidence.attributed.totals, evidence.attributed.model
    carbon = evidence.attributed.carbon
    sums = {row["arm"]: row for row in evidence.tables[ARMS].iter_rows(named=True) if row["arm"] is not None}
    per_arm: dict[str, dict[str, float | None]] = {}
    naive: dict[str, dict[str, float]] = {rule: {} for rule in RULES}
    for code, arm in enumerate(evidence.arms):
        if (row := sums.get(code)) is None:
            continue
        n = row["n"]
        grams = row[CARBON] if carbon is not None and row["priced"] else None
        per_arm[arm] = {
            "requests": n,
            "wh": row[ENERGY],
            "wh_per_request": row[ENERGY] / n,
            "wh_per_success": row[OF_KNOWN] / row[SUCCESS] if row.get(SUCCESS) else None,
            "cold_start_wh": row[COLD],
            "g_co2e": grams,
            "g_per_request": None if grams is None else grams / row["priced"],
            **({"measured_share": measured_share(row)} if totals.metered else {}),
        }
        for rule in RULES:
            # A load is spread by its own rule, whichever shares out the batches.
            naive[rule][arm] = (row[rule_column(rule)] + row[COLD]) / n
    return {
        "method": totals.method,
        "energy_model": model.name,
        "batches": totals.batches,
        "requests": totals.requests,
        "total_wh": totals.wh,
        "efficiency_error_wh": totals.efficiency_error_wh,
        "per_arm": per_arm,
        "naive": naive,
        "components": totals.components,
        "measured": totals.measured(),
        "tier": totals.tier,
        "unattributed": sum(totals.unattributed.values()),
        "unattributed_because": totals.unattributed,
        "incomplete_batches": totals.incomplete,
        "idle_wh": None if totals.drawn else totals.idle_wh,
        "cold_start": cold_start(totals),
        "g_per_kwh": None if carbon is None else carbon.g_per_kwh,
        "pue": model.pue,
        "beyond_step_table": totals.beyond_table,
    }


def cold_start(totals: Totals) -> dict[str, Any] | None:
    """How the energy of loads was spread; None where the spec names none."""
    cold = totals.cold
    if cold is None:
        return None
    return {
        "loads": cold.loads, "wh": cold.wh, "carried_wh": cold.carried_wh, "short_loads": cold.short,
        "unused_loads": cold.unused, "unused_wh": cold.unused_wh, "invalid": cold.invalid,
    }  # fmt: skip


def notes(evidence: Evidence) -> list[str]:
    """What the reader of an attribution must know of the rows and batches behind it."""
    if evidence.attributed is None:
        return []
    return flags(evidence.attributed.totals)


def flags(totals: Totals) -> list[str]:
    """What an attribution could not use, and where the model is far from what was measured."""
    found = [f"requests without a share of energy ({why}): {n:,}" for why, n in totals.unattributed.items()]
    cold = totals.cold
    counted = {
        "batches that lost such requests, so that the others in them carry the whole": totals.incomplete,
        "batches without measured energy, for which the modelled stands": totals.missing,
        "batches whose measured energy cannot be, or contradicts itself, for which the modelled stands": totals.invalid,
        "of these, batches measured below what idle GPUs draw for as long as the model's step times say": (
            totals.below_idle
        ),
        "requests without a grid intensity, and so without carbon": totals.no_intensity,
        "requests whose grid intensity is negative or infinite, and so without carbon": totals.bad_intensity,
    }
    if cold is not None:
        counted |= {
            "model loads whose energy nobody carries, as no request with a share followed": cold.unused,
            "model loads that fewer requests followed than they are spread over; those carry it all": cold.short,
            "model loads whose energy is negative or infinite, and which are left out": cold.invalid,
        }
    found += [f"{what}: {n:,}" for what, n in counted.items() if n]
    if (pace := totals.odd_pace) is not None:
        found.append(
            f"requests stay {pace:.3g} decode steps for each token that they write, where one is usual: columns.start "
            "and columns.end must count decode steps, not time, or the energy of decoding is off by about as much"
        )
    if totals.lopsided:
        found.append(
            f"batches in which few requests have most of the energy, where sampled shares are least sure: "
            f"{totals.lopsided:,}"
        )
    if totals.unreached:
        found.append(
            f"batches whose sampled shares stay above the tolerance, for all orders that were drawn: "
            f"{totals.unreached:,} (largest mean error {totals.relative_error:.1%})"
        )
    if totals.off:
        found.append(
            f"measured energy is {totals.factor_median:.3g} times the modelled in the middle batch: the energy model "
            "is not of this system; `readout attribute --fit` fits one to the measured batches"
        )
    if totals.far:
        found.append(f"batches measured below half or above twice the modelled energy: {totals.far:,}")
    if totals.beyond_table:
        found.append(
            "decode steps with fewer or more active requests than the energy model was measured for, so that their "
            f"energy is a guess: {totals.beyond_table:.1%}"
        )
    return found


def caveat(evidence: Evidence, metric: Metric) -> list[str]:
    """What stands beside a metric of attributed energy: that it is an outcome of shared capacity, and whether batches
    mix arms."""
    if evidence.attributed is None or not uses_energy(evidence.terms[metric.name]):
        return []
    return [f"{CAPACITY_STATE} (check mixed_batches: {mixed_batches(evidence).message})"]


def _success(spec: Spec, terms: Mapping[str, Term]) -> pl.Expr | None:
    """What counts a success: the metric named ``success``, or the one that the economics value; None without one."""
    economics = spec.economics
    valued = economics.value.metric if economics is not None and economics.value is not None else None
    for name in ("success", valued):
        term = terms.get(name) if name is not None else None
        if term is not None and term.den is None and term.quantile is None:
            return term.num
    return None
