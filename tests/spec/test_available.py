"""What is valid and comes later is refused at its key, all of it at once."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from readout.errors import Problem, SpecError
from readout.spec import Spec
from readout.spec.available import require_available

Loader = Callable[..., Spec]


def refused(spec: Spec) -> list[Problem]:
    with pytest.raises(SpecError) as error:
        require_available(spec)
    return list(error.value.problems)


def test_a_small_spec_is_available(loaded: Loader, small: str) -> None:
    require_available(loaded(small))


def test_a_plain_switchback_is_available(loaded: Loader) -> None:
    text = (
        "logs: {path: a}\ndesign: {kind: switchback, control: a, treatment: b, block: 2h, carryover_blocks: 1}\n"
        "estimator: {weights: units}\nmetrics: {m: {column: y, role: primary, better: higher, quantile: 0.9}}\n"
    )
    require_available(loaded(text))


def test_the_whole_contract_example_is_available(loaded: Loader, contract: str) -> None:
    require_available(loaded(contract))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("decision.frame=rule", "decision.frame: the frame rule in this design: not available yet"),
        ("report.html=true", "report.html: not available yet"),
    ],
)
def test_an_override_is_refused_too(loaded: Loader, small: str, override: str, message: str) -> None:
    (found,) = refused(loaded(small, override))
    assert found.message == message
    assert found.where == f"--set {override.partition('=')[0]}"


def test_segments_where_they_are_not_read(loaded: Loader) -> None:
    text = (
        "logs: {path: a}\ndesign: {kind: did, rollout: r}\nsegments: [tier]\n"
        "metrics: {m: {column: y, role: primary, better: higher}}\n"
    )
    (found,) = refused(loaded(text))
    assert (found.where, found.message) == ("spec.yaml:3:11", "segments: segments in this design: not available yet")
    text = (
        "logs: {path: a}\ndesign: {kind: user_rct, control: a, treatment: b, shared_state: false}\nsegments: [tier]\n"
        "decision: {looks: sequential, exposure: 1d}\nmetrics: {m: {column: y, role: primary, better: higher}}\n"
    )
    assert [p.message for p in refused(loaded(text))] == [
        "segments: segments under sequential looks: not available yet"
    ]


def test_what_a_policy_that_has_not_run_cannot_be_asked(loaded: Loader) -> None:
    text = (
        "logs: {path: a}\n"
        "design: {kind: ope, policy_probability: p, treatment: [a, b]}\nestimator: ips\n"
        "metrics: {m: {column: y, role: primary, better: higher, per: unit}, "
        "n: {column: y, better: higher, on: untreated}, q: {column: y, better: higher, quantile: 0.9}}\n"
    )
    assert [p.message for p in refused(loaded(text))] == [
        "design.treatment: several treatments in this design: not available yet",
        "metrics.m.per: sums within units in this design: not available yet",
        "metrics.n.on: a metric of untreated rows in this design: not available yet",
        "metrics.q.quantile: quantiles in this design: not available yet",
    ]


def test_the_frame_of_a_rule_is_for_rules(loaded: Loader, small: str) -> None:
    metrics = "metrics: {m: {column: y, role: primary, better: higher}}\n"
    rule = "logs: {path: a}\ndecision: {frame: rule}\n"
    require_available(loaded(f"{rule}design: {{kind: ope, policy_probability: p}}\n{metrics}"))
    (found,) = refused(loaded(small, "decision.frame=rule"))
    assert found.message == "decision.frame: the frame rule in this design: not available yet"


def test_a_method_is_available_with_its_design(loaded: Loader) -> None:
    metrics = "metrics: {m: {column: y, role: primary, better: higher}}\n"
    design = "kind: cluster_rct, control: a, treatment: b, strata: [s], pairs: p"
    for estimator in ("randomization_inference", "{method: cluster_robust, variance: CR1}", "{weights: rows}"):
        require_available(loaded(f"logs: {{path: a}}\ndesign: {{{design}}}\nestimator: {estimator}\n{metrics}"))
    design = "kind: switchback, control: a, treatment: b, block: 2h, carryover_blocks: 2"
    for estimator in ("randomization_inference", "horvitz_thompson", "{method: block_regression, hac: 3}"):
        require_available(loaded(f"logs: {{path: a}}\ndesign: {{{design}}}\nestimator: {estimator}\n{metrics}"))
