"""What is true: outcomes of the same requests under policy *current* everywhere and policy *premium* everywhere."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from readout.simulate.arrivals import Bools, Floats, Workload
from readout.simulate.experiment import Assignment
from readout.simulate.system import PREMIUM, Outcomes

ON_TIME_MS = 1000.0


def metrics(columns: Mapping[str, Floats], executed_premium: Bools, rows: Bools) -> dict[str, float | None]:
    """The metrics of the bundled spec over some rows of a log; None where no row stands behind one.

    ``ttft_p99`` is the quantile, ``cost_per_success`` the ratio of sums, ``untreated_ttft`` the mean over rows that
    the new route did not serve; all others are means over rows.
    """
    ttft = columns["ttft_ms"][rows]
    if not ttft.size:
        return {}
    success = columns["success"][rows]
    untreated = ttft[~executed_premium[rows]]
    means = {name: float(columns[name][rows].mean()) for name in _MEANS}
    return {
        "ttft": float(ttft.mean()),
        "ttft_p99": float(np.quantile(ttft, 0.99, method="inverted_cdf")),
        "untreated_ttft": float(untreated.mean()) if untreated.size else None,
        "error_rate": means["error"],
        "success": means["success"],
        "on_time": float((success * (ttft <= ON_TIME_MS)).mean()),
        "latency": means["latency_ms"],
        "tokens": means["output_tokens"],
        "timed_out": means["timed_out"],
        "gpu_seconds": means["gpu_seconds"],
        "cost_per_request": means["cost_usd"],
        "cost_per_success": float(columns["cost_usd"][rows].sum() / success.sum()) if success.sum() else None,
        "energy_wh": means["energy_wh"],
    }


_MEANS = ("error", "success", "latency_ms", "output_tokens", "timed_out", "gpu_seconds", "cost_usd", "energy_wh")


def difference(control: Mapping[str, float | None], treatment: Mapping[str, float | None]) -> dict[str, object]:
    """Metric → both values, treatment minus control, and the same relative to control."""
    table: dict[str, object] = {}
    for name, low in control.items():
        high = treatment.get(name)
        known = low is not None and high is not None
        effect = high - low if known else None  # type: ignore[operator]
        relative = effect / low if effect is not None and low else None
        table[name] = {"control": low, "treatment": high, "effect": effect, "relative": relative}
    return table


def compare(
    workload: Workload,
    logs: Mapping[str, Mapping[str, Floats]],
    outcomes: Mapping[str, Outcomes],
    assignment: Assignment,
) -> dict[str, object]:
    """The effects that the experiment is after, and what a comparison of its two arms by plain means would say.

    Args:
        logs: Log columns by run: ``current``, ``premium`` (that policy everywhere) and ``experiment``.
        outcomes: The same runs.
    """
    everyone = np.ones(workload.t_s.size, dtype=bool)

    def of(run: str, rows: Bools) -> dict[str, float | None]:
        return metrics(logs[run], outcomes[run].executed == PREMIUM, rows)

    arm, eligible = assignment.premium, ~workload.reserved
    found: dict[str, object] = {
        "global_effect": difference(of("current", everyone), of("premium", everyone)),
        "global_effect_eligible": difference(of("current", eligible), of("premium", eligible)),
        "naive_difference": difference(of("experiment", ~arm), of("experiment", arm)),
        "naive_difference_eligible": difference(of("experiment", ~arm & eligible), of("experiment", arm & eligible)),
    }
    if assignment.rollout_day.size:
        found["effect_on_treated"] = difference(of("current", arm), of("experiment", arm))
    return found
