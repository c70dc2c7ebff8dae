"""What a valid spec becomes."""

from __future__ import annotations

import dataclasses
import hashlib
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from readout.errors import SpecError
from readout.spec import Spec, load
from readout.spec.designs import Adjust, Bandwidth, Block
from readout.spec.fields import Effect

Loader = Callable[..., Spec]


def test_a_small_spec_has_every_default(loaded: Loader, small: str) -> None:
    spec = loaded(small)
    assert spec.name == "spec"
    assert spec.version == 1
    assert spec.decision.alpha == 0.05
    assert spec.decision.frame is None
    assert spec.logs.path == ("logs/*.parquet",)
    assert spec.logs.timezone == "UTC"
    assert spec.logs.columns.unit is None
    assert spec.design.kind == "user_rct"
    assert spec.design.treatment == ("premium",)
    assert spec.design.split is None
    assert spec.estimator.method == "difference_in_means"
    assert spec.estimator.options == {"variance": "CR1"}
    assert spec.metrics["ttft"].name == "ttft"
    assert (spec.segments, spec.events, spec.rollback) == ((), (), ())
    assert (spec.economics, spec.capacity, spec.surrogate, spec.attribution) == (None, None, None, None)
    assert spec.report.figures
    assert spec.base == Path()


def test_the_contract_example_is_read_whole(loaded: Loader, contract: str) -> None:
    spec = loaded(contract)
    assert spec.name == "premium-router"
    assert spec.logs.start == datetime(2026, 10, 5, tzinfo=UTC)
    assert spec.logs.columns.state == ("queue_depth", "cache_warm", "kv_tokens_in_flight")
    assert spec.design.kind == "switchback"
    assert spec.design.block == Block(length=timedelta(hours=2))
    assert spec.design.washout == timedelta(minutes=20)
    assert spec.design.split == {"current": 0.5, "premium": 0.5}
    assert list(spec.metrics)[:3] == ["ttft", "error_rate", "ttft_p99"]
    assert spec.metrics["ttft"].minimum_effect == Effect(0.05, True, "5%")
    assert spec.metrics["error_rate"].margin == Effect(0.002, False, "0.002")
    assert spec.metrics["tokens"].robust is not None
    assert spec.metrics["tokens"].covariate is not None
    assert spec.metrics["tokens"].covariate.numerator == "tokens_before"
    assert [s.name for s in spec.segments] == ["tier", "long_context"]
    assert spec.segments[0].column == "tier"
    assert spec.events[0].clusters == ("us-east",)
    assert spec.economics is not None
    assert spec.economics.cost is not None
    assert (spec.economics.cost.column, spec.economics.cost.usd) == ("gpu_seconds", 0.0011)
    assert spec.capacity is not None
    assert spec.capacity.window == timedelta(minutes=5)
    assert [t.min_rows for t in spec.rollback] == [100, 100, 100]
    assert spec.surrogate is not None
    assert list(spec.surrogate.ladder) == ["system", "session", "user", "business"]
    assert spec.attribution is not None
    assert spec.attribution.carbon is not None
    assert spec.attribution.carbon.g_per_kwh == 380
    assert spec.checks["srm"].threshold == 0.001


def test_a_spec_is_frozen(loaded: Loader, small: str) -> None:
    spec = loaded(small)
    with pytest.raises(dataclasses.FrozenInstanceError):
        spec.logs.path = ()  # type: ignore[misc]
    assert not hasattr(spec.design, "__dict__")


DESIGNS = {
    "request_rct": "control: a, treatment: [b, c], shared_state: true",
    "cluster_rct": "control: a, treatment: b, strata: continent, pairs: pair_id, pre_period: 14d",
    "switchback": "control: a, treatment: b, block: {length: 1d, offset: 30m}, assignment: paired, carryover_blocks: 2",
    "observational": "control: a, treatment: b, adjust: {propensity: [x], outcome: [x, z]}, negative_control: m",
    "did": "rollout: first_day, controls: not_yet, period: 1d, adjust: [x]",
    "synthetic_control": "treated: [us-east, 7], rollout_at: 2026-10-07, period: 7d",
    "iv": "instrument: [z1, z2], adjust: [x]",
    "rdd": "running: score, cutoff: 0.5, bandwidth: {h: 1, b: 2}, covariates: [x]",
    "ope": 'target_policy: {rules: [{when: "x > 1", action: 0}], else: 1}, actions: [0, 1], policy_probability: p',
}


def of_kind(kind: str, keys: str) -> str:
    window = ", start: 2026-10-01" if "pre_period" in keys else ""
    return (
        f"logs: {{path: a.parquet{window}}}\ndesign: {{kind: {kind}, {keys}}}\n"
        "metrics: {m: {column: y, role: primary, better: higher}}\n"
    )


@pytest.mark.parametrize(
    ("kind", "method", "shared"),
    [
        ("request_rct", "difference_in_means", True),
        ("cluster_rct", "cluster_means", True),
        ("switchback", "block_regression", True),
        ("observational", "aipw", True),
        ("did", "callaway_santanna", False),
        ("synthetic_control", "synthetic_control", False),
        ("iv", "two_stage_least_squares", False),
        ("rdd", "local_linear", False),
        ("ope", "doubly_robust", True),
    ],
)
def test_every_design_has_its_method_and_its_shared_state(loaded: Loader, kind: str, method: str, shared: bool) -> None:
    spec = loaded(of_kind(kind, DESIGNS[kind]))
    assert spec.design.kind == kind
    assert spec.estimator.method == method
    assert spec.design.shared_state is shared


def test_design_keys_are_parsed(loaded: Loader) -> None:
    def design(kind: str, keys: str = "") -> object:
        return loaded(of_kind(kind, keys or DESIGNS[kind])).design

    synthetic = design("synthetic_control")
    assert synthetic.treated == ("us-east", "7")  # type: ignore[attr-defined]
    assert synthetic.rollout_at == datetime(2026, 10, 7, tzinfo=UTC)  # type: ignore[attr-defined]
    assert design("rdd").bandwidth == Bandwidth(h=1, b=2)  # type: ignore[attr-defined]
    assert design("rdd", "running: x, cutoff: 0, bandwidth: auto").bandwidth is None  # type: ignore[attr-defined]
    assert design("observational").adjust == Adjust(propensity=("x",), outcome=("x", "z"))  # type: ignore[attr-defined]
    plain = design("observational", "control: a, treatment: b, adjust: [x]")
    assert plain.adjust == Adjust(propensity=("x",), outcome=("x",))  # type: ignore[attr-defined]
    policy = design("ope").target_policy  # type: ignore[attr-defined]
    assert (policy.rules[0].action, policy.otherwise) == ("0", "1")
    assert design("cluster_rct").pre_period == timedelta(days=14)  # type: ignore[attr-defined]
    pair = design("cluster_rct", "control: a, treatment: b, pre_period: [2026-09-01, 2026-10-01]")
    assert pair.pre_period == (datetime(2026, 9, 1, tzinfo=UTC), datetime(2026, 10, 1, tzinfo=UTC))  # type: ignore[attr-defined]
    column = design("switchback", "control: a, treatment: b, block: {column: block_id}")
    assert column.block == Block(column="block_id")  # type: ignore[attr-defined]


def test_labels_compare_as_text(loaded: Loader) -> None:
    spec = loaded(
        of_kind("request_rct", "control: 0, treatment: [true, 2.0], shared_state: false, split: {0: 2, true: 1, 2: 1}")
    )
    assert (spec.design.control, spec.design.treatment) == ("0", ("true", "2"))
    assert spec.design.split == {"0": 0.5, "true": 0.25, "2": 0.25}


def test_integer_periods_belong_to_panels(loaded: Loader) -> None:
    text = of_kind("synthetic_control", "treated: [a], rollout_at: 8").replace(
        "a.parquet", "a.parquet, start: 1, end: 12"
    )
    spec = loaded(text)
    assert (spec.logs.start, spec.design.rollout_at) == (1, 8)  # type: ignore[union-attr]


def test_times_without_a_zone_are_in_the_logs_zone(loaded: Loader, small: str) -> None:
    where = "path: logs/*.parquet\n  timezone: America/New_York\n  start: 2026-10-05 08:30\n  end: 2026-10-19"
    logs = loaded(small.replace("path: logs/*.parquet", where)).logs
    assert logs.start == datetime(2026, 10, 5, 12, 30, tzinfo=UTC)
    assert logs.end == datetime(2026, 10, 19, 4, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "effect"),
    [
        ("25", Effect(25, False, "25")),
        ("0.5 %", Effect(0.005, True, "0.5%")),
        ("-5%", Effect(0.05, True, "5%")),
        ("-25", Effect(25, False, "25")),
        ("1e-3", Effect(0.001, False, "0.001")),
        ("'2.5'", Effect(2.5, False, "2.5")),
        ("0", Effect(0, False, "0")),
    ],
)
def test_a_sign_that_agrees_with_better_is_dropped(loaded: Loader, small: str, text: str, effect: Effect) -> None:
    assert loaded(small + f"    minimum_effect: {text}\n").metrics["ttft"].minimum_effect == effect


def test_a_margin_has_the_sign_of_harm(loaded: Loader, small: str) -> None:
    assert loaded(small + "    margin: +5%\n").metrics["ttft"].margin == Effect(0.05, True, "5%")


def test_estimator_options_are_filled_in(loaded: Loader, small: str) -> None:
    estimator = loaded(
        of_kind("observational", "control: a, treatment: b") + "estimator: {method: ipw, trim: 0.01}\n"
    ).estimator
    assert estimator.method == "ipw"
    assert estimator.options["trim"] == 0.01
    assert estimator.options["folds"] == 5
    assert estimator.said == ("trim",)
    assert loaded(small + "estimator: cuped\n").estimator.method == "cuped"


def test_the_hash_is_of_the_bytes_and_the_overrides(loaded: Loader, small: str) -> None:
    plain = loaded(small)
    assert plain.sha256 == hashlib.sha256(small.encode()).hexdigest()
    assert loaded(small, "decision.alpha=0.05").sha256 not in ("", plain.sha256)


def test_overrides_win_and_make_what_they_need(loaded: Loader, small: str) -> None:
    spec = loaded(
        small,
        "decision.alpha=0.2",
        "decision.alpha=0.1",
        "logs.path=[a.parquet, b.parquet]",
        "logs.path.1=c.parquet",
        "metrics.p99={column: ttft_ms, quantile: 0.99, better: lower}",
        "question=a=b",
        "design.control=on",
    )
    assert spec.decision.alpha == 0.1
    assert spec.logs.path == ("a.parquet", "c.parquet")
    assert spec.metrics["p99"].quantile == 0.99
    assert spec.question == "a=b"
    assert spec.design.control == "on"


def test_an_override_mends_the_file(loaded: Loader, small: str) -> None:
    assert loaded(small.replace("lower", "up"), "metrics.ttft.better=lower").metrics["ttft"].better == "lower"
    assert loaded(small + "question: !x y\n", "question=z").question == "z"


def test_a_dotted_arm_is_found_by_its_whole_name(loaded: Loader, small: str) -> None:
    text = small.replace("premium", "v1.2\n  split: {current: 1, v1.2: 1}")
    assert loaded(text, "design.split.v1.2=3").design.split == {"current": 0.25, "v1.2": 0.75}


def test_a_byte_order_mark_and_windows_lines_are_read(tmp_path: Path, small: str) -> None:
    file = tmp_path / "spec.yaml"
    file.write_bytes(b"\xef\xbb\xbf" + small.replace("\n", "\r\n").encode())
    assert load(file).metrics["ttft"].column == "ttft_ms"


def test_loading_is_light() -> None:
    code = "import sys, readout.spec; print(sorted({'polars', 'numpy', 'scipy', 'pyarrow', 'rich'} & set(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"


def test_an_error_is_one_error(loaded: Loader) -> None:
    with pytest.raises(SpecError) as error:
        loaded("logs: {}\n")
    assert error.value.code == 2
