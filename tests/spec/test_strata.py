"""What goes with strata of units, and with errors by cluster."""

from __future__ import annotations

import pytest

from readout.errors import SpecError

TEXT = (
    "logs: {path: a}\ndesign: {kind: %s, control: a, treatment: b, shared_state: false, strata: [tier]}\n"
    "estimator: %s\nmetrics: {m: {column: y, role: primary, better: higher%s}}\n"
)


@pytest.mark.parametrize("kind", ["user_rct", "request_rct"])
def test_strata_are_columns(loaded, kind: str) -> None:
    for method in ("difference_in_means", "regression_adjusted"):
        assert loaded(TEXT % (kind, method, "")).design.strata == ("tier",)


@pytest.mark.parametrize(
    ("estimator", "metric", "override", "said"),
    [
        ("cuped", "", (), "design.strata: does not combine with cuped"),
        ("{variance: CR1}", "", (), "estimator.variance: does not combine with design.strata"),
        ("auto", ", robust: {method: catoni}", (), "metrics.m.robust: catoni does not combine with design.strata"),
        ("{variance: CR1}", "", ("decision.looks=sequential",), "decision.looks: sequential looks do not combine with"),
    ],
)
def test_what_strata_do_not_combine_with(loaded, estimator: str, metric: str, override: tuple[str, ...], said: str):
    with pytest.raises(SpecError) as error:
        loaded(TEXT % ("user_rct", estimator, metric), *override)
    assert [p.message for p in error.value.problems if p.message.startswith(said)]
