"""Three readouts made by hand: a switchback that ships, an RCT with spillover, and logs that show nothing."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from readout.results import BlockPoint, Check, Decision, MetricResult, Readout, Rows


def a_metric(name: str, role: str, **fields: object) -> MetricResult:
    base = MetricResult(
        metric=name, role=role, arm="premium", control="current", better="lower", unit="cluster-block",
        estimand="ate", method="block_regression", estimate=-25.31, std_error=3.02, df=160.4, statistic=-8.38,
        p_value=2.1e-14, ci_low=-31.27, ci_high=-19.35, relative=-0.0612, relative_ci_low=-0.0755,
        relative_ci_high=-0.0468, control_value=413.5, treatment_value=388.2, n_control=252, n_treatment=252,
        minimum_detectable_effect=8.45, verdict="better",
    )  # fmt: skip
    return replace(base, **fields)  # type: ignore[arg-type]


ERROR_RATE = a_metric(
    "error_rate", "guardrail", estimate=0.0003, std_error=0.0004, statistic=0.75, p_value=0.454, ci_low=-0.0005,
    ci_high=0.0011, relative=0.029, relative_ci_low=-0.048, relative_ci_high=0.107, control_value=0.0103,
    treatment_value=0.0106, verdict="inconclusive", guardrail="holds", margin="0.002",
)  # fmt: skip
COST = a_metric(
    "cost_per_success", "guardrail", estimate=0.00011, std_error=0.00002, statistic=5.5, p_value=1e-7, ci_low=0.00007,
    ci_high=0.00015, relative=0.055, relative_ci_low=0.035, relative_ci_high=0.075, control_value=0.002,
    treatment_value=0.00211, verdict="worse", guardrail="holds", margin="10%",
)  # fmt: skip
P99 = a_metric(
    "ttft_p99", "guardrail", estimate=31.0, std_error=40.0, ci_low=-48.0, ci_high=110.0, relative=0.016,
    relative_ci_low=-0.025, relative_ci_high=0.056, control_value=1950.0, treatment_value=1981.0, p_value=0.44,
    verdict="inconclusive", guardrail="inconclusive", margin="5%",
)  # fmt: skip
SUCCESS = a_metric(
    "success", "secondary", better="higher", estimate=0.0011, std_error=0.0006, ci_low=-0.0001, ci_high=0.0023,
    relative=0.0011, relative_ci_low=-0.0001, relative_ci_high=0.0023, control_value=0.9891, treatment_value=0.9902,
    p_value=0.07, verdict="no_effect", minimum_effect="1%",
)  # fmt: skip
TTFT = a_metric("ttft", "primary", minimum_effect="5%")

CHECKS = (
    Check("srm", "assignment", "pass", "252 blocks of each arm; p = 1.000", 0.0, 1.0, 0.0, 0.001, "pause"),
    Check("carryover", "spillover", "warn", "the lag's interval leaves the band: 1.2 [-4.0, 6.4] ms",
          value=1.2, threshold=6.3, action="stronger_design",
          details={"lags": [{"lag": 1, "estimate": 1.2, "ci_low": -4.0, "ci_high": 6.4}]}),
    Check("required_fields", "logging", "pass", "intended, executed and state are logged", action="instrument"),
    Check("eligibility", "assignment", "skip", "no eligibility column is mapped", action="pause"),
)  # fmt: skip


def blocks(clusters: tuple[str, ...], days: int = 14) -> tuple[BlockPoint, ...]:
    points = []
    for c, cluster in enumerate(clusters):
        for block in range(12 * days):
            hour = 2 * (block % 12)
            arm = "premium" if (block * 7 + c * 3 + block // 12) % 2 else "current"
            level = 400 + 25 * c + 60 * math.sin(math.tau * hour / 24) + 13 * math.sin(block * 12.9898 + c)
            start = f"2026-10-{5 + block // 12:02d}T{hour:02d}:00:00+00:00"
            points.append(BlockPoint(start, cluster, arm, level - 25 * (arm == "premium")))
    return tuple(points)


def a_switchback() -> Readout:
    return Readout(
        name="premium-router",
        question="Should latency-sensitive traffic go to the premium fleet when it has room?",
        counterfactual="The current router on the same regions and hours.",
        failure_mode="Treated traffic slows everyone else in the region.",
        mitigation="Region-wide blocks of two hours with washout.",
        monitor="p99 TTFT and fallback rate by region.",
        spec_sha256="9f" * 32,
        readout_version="0.1.0",
        seed=20261005,
        as_of="2026-10-20T00:00:00+00:00",
        alpha=0.05,
        window={"start": "2026-10-05T00:00:00+00:00", "end": "2026-10-19T00:00:00+00:00"},
        rows=Rows(1_234_567, 1_134_000, {"washout": 100_000, "null arm": 567}),
        columns={"time": "decision_ts", "arm": "arm", "state": ["queue_depth", "cache_warm"]},
        mapped_unasked=("arm",),
        design={
            "kind": "switchback", "estimand": "ate", "method": "block_regression", "unit": "cluster-block",
            "n_units": {"current": 252, "premium": 252}, "control": "current", "treatments": ["premium"],
            "split": {"current": 0.5, "premium": 0.5}, "shared_state": True, "block": "2h", "washout": "20m",
        },
        assignment="Each region drew one arm for every two-hour block, by a fair coin.",
        decision=Decision(
            "ship", "premium", {"premium": "ship"}, "everything_clear",
            "Time to first token falls by 6.1 % and every guardrail but one holds.",
            ("ttft is better by 25.3 ms, past the minimum effect of 5%.",),
            ("A p99 interval past its margin would make this a ramp.",),
            ("error_rate above 0.02",),
            "Route all eligible traffic and watch p99 TTFT for a week.",
        ),
        checks=CHECKS,
        metrics=(SUCCESS, ERROR_RATE, TTFT, P99, COST),
        diagnostics={
            "intraclass_correlation": 0.0123, "calendar": "hour of day", "dropped_levels": ["04", "05"],
            "by_cluster": [
                {"cluster": "eu", "estimate": -24.1, "n": 168}, {"cluster": "us", "estimate": -26.5, "n": 168},
            ],
            "carryover_fit": {"lag_1": {"estimate": 1.2, "std_error": 2.6}},
            "mixed": {"r_squared": 0.81, "terms": [{"term": "arm", "value": -25.31}]},
        },
        economics={
            "value_per_gpu_hour": 3.21, "cost_per_success": {"current": 0.00200, "premium": 0.00211},
            "margin": {"current": 0.00197, "premium": 0.00189},
            "net_usd_per_1k_requests": {"estimate": 0.41, "ci_low": 0.12, "ci_high": 0.7}, "bar": 0,
            "per_arm": {
                "current": {"value_usd": 2250.1, "cost_usd": 1120.9, "requests": 567_000,
                            "net_usd_per_1k_requests": 1.99},
                "premium": {"value_usd": 2262.4, "cost_usd": 901.3, "requests": 567_000,
                            "net_usd_per_1k_requests": 2.4},
            },
        },
        attribution={
            "method": "shapley_exact", "energy_model": "h100_dense_8b", "batches": 41_000, "requests": 1_134_000,
            "total_wh": 51_234.5, "efficiency_error_wh": 1.2e-11,
            "per_arm": {
                "current": {"requests": 567_000, "wh": 26_000.0, "wh_per_request": 0.0459, "wh_per_success": 0.0464,
                            "g_co2e": 9880.0, "g_per_request": 0.0174},
                "premium": {"requests": 567_000, "wh": 25_234.5, "wh_per_request": 0.0445, "wh_per_success": None,
                            "g_co2e": 9589.0, "g_per_request": 0.0169},
            },
            "naive": {
                "per_token": {"current": 0.0471, "premium": 0.0433},
                "per_request": {"current": 0.0452, "premium": 0.0452},
                "provisioned": {"current": 0.0611, "premium": 0.0611},
            },
            "measured": {}, "unattributed": 12, "g_per_kwh": 380, "pue": 1.0,
        },
        blocks=blocks(("ap-south", "eu-west", "us-east")),
        notes=("12 requests stood in no batch.",),
        figures=("figures/effects.svg", "figures/blocks.svg"),
    )  # fmt: skip


def a_spillover() -> Readout:
    """A two-arm RCT by workspace whose untreated traffic slowed: nothing in it may read as a shipping case."""
    arms = {}
    for arm, scale in (("premium", 1.0), ("premium-plus", 2.5)):
        arms[arm] = tuple(
            replace(m, arm=arm, unit="unit", method="difference_in_means", relative=(m.relative or 0) * scale,
                    relative_ci_low=(m.relative_ci_low or 0) * scale,
                    relative_ci_high=(m.relative_ci_high or 0) * scale)
            for m in (TTFT, ERROR_RATE, P99)
        )  # fmt: skip
    failed = Check(
        "untreated_outcomes", "spillover", "fail",
        "ttft of untreated rows rises by 14 ms per 10 points of share; p < 0.001",
        5.1, 3e-7, 14.0, 4.2, "stronger_design", {"by_cluster": [{"cluster": "eu", "slope": 1.41}]},
    )  # fmt: skip
    return replace(
        a_switchback(),
        name="router-rct",
        design={
            "kind": "user_rct", "estimand": "ate", "method": "difference_in_means", "unit": "unit",
            "n_units": {"current": 3000, "premium": 3010, "premium-plus": 2990}, "control": "current",
            "treatments": ["premium", "premium-plus"], "split": None, "shared_state": True, "block": None,
            "washout": None,
        },
        assignment="Each workspace drew one of three arms once.",
        decision=Decision(
            "stronger_design", "premium", {"premium": "stronger_design", "premium-plus": "stronger_design"},
            "spillover", "The arms share a queue, so this comparison is not the effect of a full rollout.",
            ("untreated_outcomes: untreated traffic slows where more is treated.",),
            ("A switchback by region with blocks of two hours.",), (), "Plan a switchback by region.",
        ),
        checks=(*CHECKS, failed),
        metrics=arms["premium"] + arms["premium-plus"],
        economics=None, attribution=None, blocks=(), figures=("figures/effects.svg",), diagnostics={}, notes=(),
    )  # fmt: skip


def an_instrument() -> Readout:
    """Logs without decision-time state: no number exists."""
    nothing = a_metric(
        "ttft", "primary", estimate=None, std_error=None, df=None, statistic=None, p_value=None, ci_low=None,
        ci_high=None, relative=None, relative_ci_low=None, relative_ci_high=None, control_value=None,
        treatment_value=None, n_control=0, n_treatment=0, minimum_detectable_effect=None, verdict=None,
        relative_reason="the control mean is not positive",
    )  # fmt: skip
    failed = Check("required_fields", "logging", "fail", "state is not logged", action="instrument")
    return replace(
        a_switchback(), name="no-logs", question="", counterfactual="", failure_mode="", mitigation="", monitor="",
        window={"start": None, "end": None}, rows=Rows(0, 0, {}), columns={}, mapped_unasked=(), assignment="",
        design={"kind": "user_rct"}, checks=(failed,), metrics=(nothing,), diagnostics={}, economics=None,
        decision=Decision("instrument", "premium", {}, "missing_evidence", "The logs lack live state.", (), (), (), ""),
        attribution=None, blocks=(), notes=(), figures=(),
    )  # fmt: skip


@pytest.fixture
def switchback() -> Readout:
    return a_switchback()


@pytest.fixture
def spillover() -> Readout:
    return a_spillover()


@pytest.fixture
def instrument() -> Readout:
    return an_instrument()


HOSTILE = (
    "x`|**b**<script>alert(1)</script>[l](http://e.vil)![i](http://e.vil/p.png)&lt;$a$\n# head\n- item\r\n"
    "::error::boom ##[error]boom\x1b[31m\x07\u202egnp\u2028[red]rich[/red] 100% -->]]>\ud800\uffff"
)


@pytest.fixture
def hostile() -> Readout:
    """The multi-arm readout with every text that comes from a spec or from data replaced by an attack."""
    base = a_spillover()
    arms = {"premium": HOSTILE, "premium-plus": HOSTILE + "2", "current": HOSTILE + "0"}
    metrics = tuple(
        replace(m, metric=HOSTILE + m.metric, arm=arms[m.arm], control=arms["current"], note=HOSTILE, margin=m.margin)
        for m in base.metrics
    )
    checks = tuple(replace(c, message=HOSTILE, details={HOSTILE: [{HOSTILE: HOSTILE}]}) for c in base.checks)
    texts = (HOSTILE,)
    switchback = a_switchback()
    return replace(
        base, name=HOSTILE, question=HOSTILE, counterfactual=HOSTILE, failure_mode=HOSTILE, mitigation=HOSTILE,
        monitor=HOSTILE, assignment=HOSTILE, notes=texts, as_of=HOSTILE, metrics=metrics, checks=checks,
        window={"start": HOSTILE, "end": None}, rows=Rows(10, 9, {HOSTILE: 1}),
        columns={"time": HOSTILE, "state": [HOSTILE]},
        diagnostics={HOSTILE: HOSTILE, "d": {HOSTILE: {HOSTILE: HOSTILE}}},
        decision=replace(
            base.decision, headline=HOSTILE, reasons=texts, would_change=texts, stop_if=texts, next_step=HOSTILE,
            by_arm={arms["premium"]: "stronger_design", arms["premium-plus"]: "pause"}, rule=HOSTILE,
        ),
        design={**base.design, "treatments": [arms["premium"], arms["premium-plus"]], "control": arms["current"],
                "n_units": {HOSTILE: 3}, "unit": HOSTILE, "estimand": HOSTILE, "method": HOSTILE, "block": HOSTILE},
        economics={**(switchback.economics or {}), "cost_per_success": {HOSTILE: 1.0}, "per_arm": {}, "margin": {}},
        attribution={"method": HOSTILE, "energy_model": HOSTILE, "per_arm": {HOSTILE: {"requests": 1}},
                     "naive": {HOSTILE: {HOSTILE: 1.0}}},
        blocks=tuple(replace(p, cluster=HOSTILE, arm=arms[p.arm]) for p in blocks((HOSTILE,), days=2)),
    )  # fmt: skip
