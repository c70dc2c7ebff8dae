"""One unit must not decide a verdict."""

from __future__ import annotations

import numpy as np
import pytest

METRICS = {"y": {"column": "y", "role": "primary", "better": "higher"}}


def log(lift: float, outlier: float = 0.0, units: int = 60) -> dict[str, np.ndarray]:
    """Arms that differ by exactly ``lift`` with a standard deviation of 1, then one treated unit moved."""
    rng = np.random.default_rng(2)
    z = rng.normal(size=units // 2)
    z = (z - z.mean()) / z.std(ddof=1)
    y = np.empty(units)
    y[0::2], y[1::2] = 10.0 + z, 10.0 + lift + z
    y[1] += outlier
    return {"unit": np.arange(units), "arm": np.array(["a", "b"] * (units // 2)), "y": y}


def test_no_single_unit_decides(said):
    for lift in (0.0, 1.0):
        check = said("tail_dominance", log(lift))
        assert (check.status, check.action) == ("pass", None)
        assert 0 < check.value < 1


def test_an_outlier_that_hides_an_effect(said):
    rows = log(1.0, outlier=-27.0)
    check = said("tail_dominance", rows)
    assert (check.status, check.action) == ("fail", "stronger_design")
    assert check.message.startswith("y: inconclusive becomes better without one unit of arm 'b' (")
    a, b = rows["y"][0::2], rows["y"][1::2]
    rest = b[1:]
    error = np.sqrt(a.var(ddof=1) / len(a) + rest.var(ddof=1) / len(rest))
    assert check.value == pytest.approx((rest.mean() - b.mean()) / error, rel=1e-9)
    assert said("tail_dominance", rows, checks={"tail_dominance": {"threshold": 9}}).status == "pass"


def test_an_outlier_that_makes_an_effect(said):
    check = said("tail_dominance", log(0.5, outlier=8.0))
    assert (check.status, "y: better becomes inconclusive" in check.message) == ("fail", True)


def test_a_guardrails_state_counts_too(said):
    metrics = {
        "x": {"column": "x", "role": "primary", "better": "lower"},
        "y": {"column": "y", "role": "guardrail", "better": "lower", "margin": "0.7"},
    }
    rows = log(0.0, outlier=20.0) | {"x": np.random.default_rng(1).normal(size=60)}
    check = said("tail_dominance", rows, metrics=metrics)
    assert (check.status, "y: inconclusive becomes holds" in check.message) == ("fail", True)


def test_half_of_the_sum_in_one_percent_of_units_warns(said):
    rng = np.random.default_rng(4)
    y = rng.exponential(size=400)
    y[:4] = 250.0
    rows = {"unit": np.arange(400), "arm": ["a", "b"] * 200, "y": y}
    check = said("tail_dominance", rows)
    assert (check.status, check.action) == ("warn", None)
    assert check.message.startswith("1 % of units hold ")


def test_one_arm_of_several(said):
    rng = np.random.default_rng(8)
    rows = log(1.0, outlier=-27.0)
    more = {"unit": np.arange(60, 90), "arm": np.array(["c"] * 30), "y": rng.normal(10.0, 1.0, 30)}
    both = {k: np.concatenate([rows[k], more[k]]) for k in rows}
    check = said("tail_dominance", both, design={"treatment": ["b", "c"]})
    assert check.details["by_arm"] == {"b": "fail", "c": "pass"}


def test_quantiles_have_no_single_unit(said):
    metrics = {"y": {"column": "y", "quantile": 0.5, "role": "primary", "better": "higher"}}
    assert said("tail_dominance", log(1.0), metrics=metrics).status == "skip"


def tails(draw, units: int, seed: int, *, by_row: bool = False) -> dict[str, np.ndarray]:
    """Two arms of like outcomes, an entry a unit."""
    rows = {"unit": np.arange(units), "arm": np.array(["a", "b"] * (units // 2))}
    return {**({} if by_row else rows), "arm": rows["arm"], "y": draw(np.random.default_rng(seed), units)}


@pytest.mark.parametrize("by_row", [False, True])
def test_a_mean_without_a_variance_is_not_to_be_trusted(said, by_row):
    check = said("tail_dominance", tails(lambda r, n: 1 + r.pareto(1.5, n), 10_000, 1, by_row=by_row))
    assert (check.status, check.action) == ("warn", None)
    assert "the mean of y is not to be trusted: tail index 1." in check.message
    assert "below 2, so its variance may be infinite; winsorize it (robust)" in check.message
    index = check.details["tails"]["y"]["tail_index"]
    assert index["low"] < 1.5 < index["high"] < 2.0


@pytest.mark.parametrize("by_row", [False, True])
def test_a_long_tail_with_a_variance_is_let_be(said, by_row):
    for units in (400, 10_000):
        check = said("tail_dominance", tails(lambda r, n: np.exp(r.normal(size=n)), units, 3, by_row=by_row))
        assert check.status == "pass"
        assert "tails" in check.details


def test_one_unit_with_most_of_the_squares(said):
    rows = tails(lambda r, n: r.normal(size=n), 1000, 1)
    rows["y"][1] = 60.0
    check = said("tail_dominance", rows)
    assert "one unit carries " in check.message
    assert " of its sum of squares; winsorize it" in check.message


@pytest.mark.parametrize("method", ["median_of_means", "catoni"])
def test_a_robust_mean_that_needs_a_variance_cures_no_infinite_one(said, method):
    metric = {"column": "y", "per": "unit", "role": "primary", "better": "higher", "robust": {"method": method}}
    rows = tails(lambda r, n: 1 + r.pareto(1.5, n), 10_000, 2)
    check = said("tail_dominance", rows, columns={"unit": "unit"}, metrics={"y": metric})
    assert check.status == "warn"
    assert f"the interval of {method} needs a variance too: take trim or winsorize" in check.message


@pytest.mark.parametrize("method", ["winsorize", "trim"])
def test_a_robust_mean_is_read_in_its_place(said, method):
    metric = {"column": "y", "per": "unit", "role": "primary", "better": "higher", "robust": {"method": method}}
    rows = tails(lambda r, n: 1 + r.pareto(1.5, n), 10_000, 2)
    check = said("tail_dominance", rows, columns={"unit": "unit"}, metrics={"y": metric})
    assert check.status == "pass"
    assert "the mean of y is not to be trusted" in check.message
    assert check.message.endswith(" mean is read")


def test_the_note_beside_the_number_says_it_too(evidence):
    from readout.estimate import metric_results

    (found,) = metric_results(evidence(tails(lambda r, n: 1 + r.pareto(1.5, n), 10_000, 1)))
    assert found.note.startswith("its mean is not to be trusted: tail index 1.")


def test_a_cap_that_hardly_cuts_cures_nothing(said):
    rows = log(0.0, outlier=300.0, units=400)
    for quantile, status in ((0.999, "warn"), (0.9, "pass")):
        robust = {"method": "winsorize", "quantile": quantile}
        check = said("tail_dominance", rows, metrics={"y": {**METRICS["y"], "robust": robust}})
        assert check.status == status
        assert ("its cap hardly changes it" in check.message) == (status == "warn")


def test_what_counts_most_may_lie_below_the_mean(said):
    """Where rows are the units, from the sums of a pass."""
    rows = log(1.0, outlier=-27.0)
    for columns in ({}, {"unit": "unit"}):
        check = said("tail_dominance", rows if columns else {k: v for k, v in rows.items() if k != "unit"}, columns)
        assert (check.status, "y: inconclusive becomes better" in check.message) == ("fail", True)
    strata = {k: v for k, v in rows.items() if k != "unit"} | {"s": np.arange(60) // 2 % 2}
    assert said("tail_dominance", strata, design={"strata": "s"}).status == "fail"


def test_a_metric_that_could_not_be_looked_at_does_not_pass(said):
    rows = {k: v for k, v in log(0.0).items() if k != "unit"} | {"n": np.full(60, 2.0)}
    ratio = {"numerator": "y", "denominator": "n", "role": "guardrail", "better": "higher", "margin": "5%"}
    check = said("tail_dominance", rows, metrics={**METRICS, "ratio": ratio})
    assert check.status == "skip"
    assert check.message.startswith("not seen of 'ratio', which could not be computed without its row that counts most")
