"""Features known before the decision, by arm, at the unit of randomization."""

from __future__ import annotations

import numpy as np
import pytest

FEATURES = {"features": ["age", "tier"]}


def log(seed: int = 1, units: int = 300, shift: float = 0.0, volume: float = 1.0) -> dict[str, np.ndarray]:
    """Heavy users; ``age`` and ``tier`` are facts of the user; treated pro users send ``volume`` times the rows."""
    rng = np.random.default_rng(seed)
    arm = rng.integers(0, 2, units)
    pro = rng.random(units) < 0.3
    age = rng.normal(5.0, 2.0, units) + 3.0 * pro + shift * arm
    n = rng.poisson(1 + np.minimum(rng.pareto(1.5, units), 40) * 4 * np.where(pro & (arm == 1), volume, 1.0)) + 1
    unit = np.repeat(np.arange(units), n)
    return {
        "unit": unit, "arm": np.array(["a", "b"])[arm[unit]], "age": age[unit],
        "tier": np.where(pro[unit], "pro", "free"), "y": rng.normal(size=len(unit)),
    }  # fmt: skip


def test_units_are_compared_once_each(said):
    rows = log()
    check = said("covariate_balance", rows, FEATURES)
    first = np.unique(rows["unit"], return_index=True)[1]
    age, arm = rows["age"][first], rows["arm"][first]
    a, b = age[arm == "a"], age[arm == "b"]
    found = {r["covariate"]: r for r in check.details["balance"]}
    size = (b.mean() - a.mean()) / np.sqrt((a.var(ddof=1) + b.var(ddof=1)) / 2)
    assert found["age"]["before"] == pytest.approx(size, rel=1e-9)
    # scipy.stats.ttest_ind(b, a, equal_var=False), from its definition
    from scipy.stats import ttest_ind

    assert found["age"]["p_value"] == pytest.approx(ttest_ind(b, a, equal_var=False).pvalue, rel=1e-9)
    assert check.status == "pass"


def test_a_treatment_that_brings_heavy_users_back_is_no_imbalance(said):
    assert said("covariate_balance", log(volume=6.0), FEATURES).status == "pass"


def test_labels_are_compared_by_their_share_within_each_unit(said):
    from scipy.stats import ttest_ind

    rng = np.random.default_rng(3)
    rows = log() | {"tier": rng.choice(["x", "y"], len(log()["unit"]), p=[0.3, 0.7])}
    (found,) = said("covariate_balance", rows, {"features": ["tier"]}).details["balance"]
    units = range(300)
    share = np.array([(rows["tier"][rows["unit"] == u] == "x").mean() for u in units])
    treated = np.array([rows["arm"][rows["unit"] == u][0] == "b" for u in units])
    p = ttest_ind(share[treated], share[~treated], equal_var=False).pvalue
    assert found["p_value"] == pytest.approx(min(1.0, 2 * p), rel=1e-9)


def test_a_large_log_is_compared_on_a_sample_of_units(said, monkeypatch):
    monkeypatch.setattr("readout.checks.balance.MOST_UNITS", 200)
    rows = log(units=4000)
    rows["tier"] = np.where(rows["arm"] == "b", "x", rows["tier"])
    assert said("covariate_balance", rows, {"features": ["tier"]}).status == "fail"


def test_imbalance_beyond_chance_pauses(said):
    check = said("covariate_balance", log(shift=1.5), FEATURES)
    assert (check.status, check.action) == ("fail", "pause")
    assert check.message.startswith("age differs between control and b beyond chance")
    assert (check.value, check.threshold) == (check.p_value, 0.001)


def test_between_chance_and_beyond_it_warns(said):
    rows = log(shift=1.5)
    loose = said("covariate_balance", rows, FEATURES, checks={"covariate_balance": {"threshold": 1e-12}})
    assert (loose.status, loose.action) == ("warn", None)


def test_independent_rows_are_tested_by_chi_square(said):
    # scipy 1.16.3: chi2_contingency([[30, 70], [45, 55]], correction=False): 4.8, p 0.028459736916310645
    rows = {"arm": ["a"] * 100 + ["b"] * 100, "tier": ["x"] * 30 + ["y"] * 70 + ["x"] * 45 + ["y"] * 55}
    check = said("covariate_balance", rows, {"features": ["tier"]})
    (row,) = check.details["balance"]
    assert row["p_value"] == pytest.approx(0.028459736916310645, rel=1e-9)
    assert row["before"] == pytest.approx(np.sqrt(4.8 / 200))


@pytest.mark.parametrize("by_unit", [True, False])
@pytest.mark.parametrize("value", [("x", "y"), (1.5, 2.5), (False, True)])
def test_arms_that_a_feature_tells_apart_entirely(said, value, by_unit):
    rows = {"arm": ["a", "b"] * 40, "tier": list(value) * 40}
    if by_unit:
        rows["unit"] = list(range(80))
    assert said("covariate_balance", rows, {"features": ["tier"]}).status == (
        "fail" if by_unit or value != (1.5, 2.5) else "skip"
    )


def test_what_cannot_be_compared_is_named(said):
    rows = log() | {"id": np.arange(len(log()["unit"])).astype(str), "one": np.array(["x"] * len(log()["unit"]))}
    check = said("covariate_balance", rows, {"features": ["age", "id", "one"]})
    assert check.message.endswith("levels): id, one")
    assert said("covariate_balance", rows, {"features": ["one"]}).status == "skip"
    assert said("covariate_balance", rows).status == "skip"


@pytest.mark.parametrize("estimator", ["cuped", "regression_adjusted"])
def test_what_metrics_are_adjusted_for_is_compared_too(said, estimator):
    rng = np.random.default_rng(3)
    arm = np.repeat(["a", "b"], 200)
    moved = rng.normal(size=400) + (arm == "b")
    rows = {"unit": np.arange(400), "arm": arm, "moved": moved, "even": rng.normal(size=400)}
    for column, status in (("moved", "fail"), ("even", "pass")):
        metrics = {"y": {"column": "y", "role": "primary", "better": "higher", "covariate": column}}
        design = {"adjust": [column]} if estimator == "regression_adjusted" else {}
        check = said("covariate_balance", rows, {}, design, metrics, estimator=estimator)
        assert (check.status, column in check.message) == (status, True)
        assert "1 comparisons" not in check.message


def test_text_that_is_adjusted_for_is_compared_by_its_levels(said):
    rows = {"unit": np.arange(400), "arm": ["a", "b"] * 200, "tier": ["x", "x", "z", "z"] * 50 + ["x", "z"] * 100}
    check = said("covariate_balance", rows, {}, {"adjust": ["tier"]}, estimator="regression_adjusted")
    assert (check.status, check.action) == ("fail", "pause")
    assert "tier = " in check.message
    assert "another level" not in check.message
