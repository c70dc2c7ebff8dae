"""Effects of actions that were not randomized, against Stata and DoubleML, in simulation, and where data fail them.

Stata's numbers of ``teffects`` on the mothers' smoking data (Cattaneo 2010) ship with statsmodels, data included; they
solve the moments to about 1e-8, so that is the tolerance. DoubleML's are ``oracles/observational.json``, made by
``oracles/observational.py``: the same folds and learners, both solved to rounding, so 1e-9.
"""

from __future__ import annotations

import json
import math
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from estimators import Estimate, EstimationError, aipw, dml, ipw, nuisances, outcome_regression, potential_means
from estimators.nuisances import Nuisances
from estimators.potential_means import PotentialMeans

HERE = Path(__file__).parent
DOUBLEML = json.loads((HERE / "oracles" / "observational.json").read_text())
METHODS = {"aipw": aipw, "ipw": ipw, "outcome_regression": outcome_regression, "dml": dml}

OUTCOME = ["prenatal1_", "mmarried_", "mage", "fbaby_"]
TREATMENT = ["mmarried_", "mage", "mage2", "fbaby_", "medu"]


@cache
def mothers() -> pd.DataFrame:
    import statsmodels.treatment.tests as package

    return pd.read_csv(Path(package.__file__).parent / "results" / "cataneo2.csv")


def of_mothers(**options: Any) -> Nuisances:
    data = mothers()
    plain: dict[str, Any] = {"folds": 1, "penalty": 0, "outcome_covariates": data[OUTCOME]}
    return nuisances(data.mbsmoke_, data[TREATMENT], **(plain | options))


@pytest.mark.parametrize(("method", "name"), [(outcome_regression, "ra"), (ipw, "ipw")])
@pytest.mark.parametrize(("estimand", "table"), [("ate", "table"), ("att", "table_t")])
def test_the_numbers_of_teffects(method: Any, name: str, estimand: str, table: str) -> None:
    from statsmodels.treatment.tests.results import results_teffects

    (effect, error), (control, _) = getattr(results_teffects, f"results_{name}")[table][:2, :2]
    found = method(mothers().bweight, of_mothers(propensity="probit"), estimand=estimand)
    n = len(mothers())
    mine = [found.estimate, found.std_error * math.sqrt((n - 1) / n), found.control_value]
    assert mine == pytest.approx([effect, error, control], rel=2e-8)
    assert found.df == n - 1


@cache
def oracle_data(name: str) -> tuple[Any, Any, Any]:
    if name == "mothers":
        table = mothers()
        return table[TREATMENT].to_numpy(float), table.mbsmoke_.to_numpy(float), table.bweight.to_numpy(float)
    table = pd.read_csv(HERE / "data" / "nsw.csv")
    x = table[["age", "educ", "black", "nodegree", "re74", "re75"]]
    return x.to_numpy(float), table.treat.to_numpy(float), table.re78.to_numpy(float)


def normaliser_as_known(means: PotentialMeans, y: Any, estimand: str) -> tuple[float, float]:
    """DoubleML's estimate and error from ours: it takes what the weights are divided by as known."""
    assert means.outcomes is not None
    points, influence = [], []
    for arm, predicted in enumerate((means.outcomes.control, means.outcomes.treatment)):
        w, base = means.weights.arms[arm], means.weights.base
        share = w.mean() if estimand == "ate" else base.mean()
        level = (base @ predicted) / base.sum()
        if estimand == "ate":
            part = predicted + w * (y - predicted) / share
        else:
            part = (base * predicted + w * (y - predicted)) / share
        points.append(part.mean())
        influence.append(part - (part.mean() if estimand == "ate" else base * part.mean() / share))
        assert level + (w @ (y - predicted)) / (share * len(y)) == pytest.approx(part.mean(), rel=1e-12)
    return points[1] - points[0], float(np.sqrt(np.mean((influence[1] - influence[0]) ** 2) / len(y)))


@pytest.mark.parametrize(("kind", "name", "light", "numbers"), DOUBLEML)
def test_the_numbers_of_doubleml(kind: str, name: str, light: bool, numbers: list[float]) -> None:
    x, d, y = oracle_data(name)
    n = len(d)
    shared = nuisances(d, x, folds=np.arange(n) % 4, penalty="light" if light else 0)
    if kind == "plr":
        found = dml(y, shared)
        assert [found.estimate, found.std_error * math.sqrt((n - 1) / n)] == pytest.approx(numbers, rel=1e-9)
        assert found.diagnostics["estimand"] == "overlap"
        return
    (means,) = potential_means(y, shared, estimand=kind)
    assert list(normaliser_as_known(means, y, kind)) == pytest.approx(numbers, rel=1e-9)
    found = aipw(y, shared, estimand=kind)
    assert found.estimate == pytest.approx(numbers[0], rel=1e-9 if kind == "ate" else 0.003)
    assert found.std_error == pytest.approx(numbers[1], rel=0.02)  # weights here add up to those of the treated
    irm = dml(y, shared, model="irm", estimand=kind)
    assert (irm.estimate, irm.std_error, irm.method) == (found.estimate, found.std_error, "dml")


def world(seed: int, n: int = 400, rows: int = 1) -> dict[str, Any]:
    """Four confounders, effects of ``1 + x0``, an outcome about 10; with ``rows`` of a unit alike but for noise."""
    rng = np.random.default_rng(seed)
    units = np.repeat(np.arange(n), rows)
    x = rng.normal(size=(n, 4))[units]
    e = 1.0 / (1.0 + np.exp(-x @ [0.6, -0.4, 0.3, 0.0]))
    d = ((rng.random(n) < e[::rows])[units]).astype(float)
    y = 10.0 + x @ [1.0, 0.5, -0.5, 1.0] + d * (1.0 + x[:, 0]) + rng.normal(size=n)[units] + rng.normal(size=len(d))
    return {"x": x, "d": d, "y": y, "units": units, "den": np.exp(0.2 * x[:, 1] + 0.1 * rng.normal(size=len(d)))}


@cache
def truths() -> dict[str, tuple[float, float]]:
    """Effect and relative effect by estimand."""
    x = world(99, n=400_000)["x"]
    e = 1.0 / (1.0 + np.exp(-x @ [0.6, -0.4, 0.3, 0.0]))
    control, gain = 10.0 + x @ [1.0, 0.5, -0.5, 1.0], 1.0 + x[:, 0]
    found = {}
    for name, h in {"ate": np.ones(len(e)), "att": e, "overlap": e * (1.0 - e)}.items():
        effect, level = np.average(gain, weights=h), np.average(control, weights=h)
        found[name] = (float(effect), float(effect / level))
    return found


def test_intervals_cover_where_models_hold_whatever_the_method_and_estimand() -> None:
    seeds, hits = 25, dict.fromkeys(((m, e) for m in METHODS for e in truths()), 0)
    relative = dict.fromkeys(hits, 0)
    for seed in range(seeds):
        w = world(seed)
        shared = nuisances(w["d"], w["x"])
        for method, estimand in hits:
            found = METHODS[method](w["y"], shared, estimand=estimand)
            truth, ratio = truths()["overlap" if method == "dml" else estimand]
            hits[method, estimand] += found.ci_low <= truth <= found.ci_high
            assert found.relative_ci_low is not None
            assert found.relative_ci_high is not None
            relative[method, estimand] += found.relative_ci_low <= ratio <= found.relative_ci_high
    slack = 3.5 * math.sqrt(0.95 * 0.05 / seeds)
    assert min(hits.values()) / seeds > 0.95 - slack
    assert min(relative.values()) / seeds > 0.95 - slack


@pytest.mark.parametrize("wrong", ["propensity", "outcome"])
def test_aipw_is_right_where_one_of_the_two_models_is(wrong: str) -> None:
    errors, biases = [], []
    for seed in range(16):
        w = world(seed, n=800)
        nothing = np.zeros((len(w["d"]), 1))
        x = (nothing, w["x"]) if wrong == "propensity" else (w["x"], nothing)
        shared = nuisances(w["d"], x[0], outcome_covariates=x[1])
        found = aipw(w["y"], shared)
        errors.append((found.estimate - truths()["ate"][0]) / found.std_error)
        alone = (ipw if wrong == "propensity" else outcome_regression)(w["y"], shared)
        biases.append((alone.estimate - truths()["ate"][0]) / alone.std_error)
    assert abs(float(np.mean(errors))) < 3.5 / math.sqrt(16) < 1.0 < abs(float(np.mean(biases)))


def test_units_of_many_rows_are_kept_whole_in_folds_and_errors() -> None:
    spread, said, naive = [], [], []
    for seed in range(16):
        w = world(seed, n=120, rows=10)
        shared = nuisances(w["d"], w["x"], units=w["units"])
        for split in shared.splits:
            cells = [set(w["units"][split.design.rows(split.design.cells(split.design.pieces(k)))]) for k in range(5)]
            assert sum(map(len, cells)) == 120
        found = aipw(w["y"], shared)
        assert (found.df, found.n_control + found.n_treatment) == (119.0, 120)
        assert found.diagnostics["ess_units"]["control"] < 120 < found.diagnostics["ess"]["control"]
        spread.append(found.estimate)
        said.append(found.std_error)
        naive.append(aipw(w["y"], nuisances(w["d"], w["x"])).std_error)
    assert 0.75 < np.mean(said) / np.std(spread, ddof=1) < 1.35
    assert np.mean(naive) < 0.6 * np.mean(said)


def test_a_unit_of_one_row_is_a_row_and_the_order_of_rows_does_not_matter() -> None:
    w = world(3)
    plain = aipw(w["y"], nuisances(w["d"], w["x"]))
    named = aipw(w["y"], nuisances(w["d"], w["x"], units=w["units"]))
    assert named == plain
    order = np.random.default_rng(0).permutation(len(w["d"]))
    mixed = aipw(w["y"][order], nuisances(w["d"][order], w["x"][order], units=w["units"][order]))
    assert (mixed.estimate, mixed.std_error) == pytest.approx((plain.estimate, plain.std_error), rel=1e-9)
    other = aipw(w["y"], nuisances(w["d"], w["x"], seed=1))
    assert other.estimate != plain.estimate


@pytest.mark.parametrize("method", METHODS.values())
def test_a_ratio_of_a_denominator_of_ones_is_the_mean_and_scales_with_its_denominator(method: Any) -> None:
    w = world(4)
    shared = nuisances(w["d"], w["x"], penalty=0)
    plain = method(w["y"], shared)
    ones = method(w["y"], shared, denominator=np.full(len(w["d"]), 2.0))
    assert (2.0 * ones.estimate, 2.0 * ones.std_error) == pytest.approx((plain.estimate, plain.std_error), rel=1e-9)
    assert ones.relative_ci_low == pytest.approx(plain.relative_ci_low, rel=1e-9)
    found = method(w["y"] * w["den"], shared, denominator=w["den"])
    assert found.ci_low < 1.3
    assert found.ci_high > 0.7


@pytest.mark.parametrize("method", METHODS.values())
def test_units_of_measurement_move_the_numbers_alike(method: Any) -> None:
    w = world(5)
    found = method(w["y"], nuisances(w["d"], w["x"]))
    moved = method(1e6 + 3.0 * w["y"], nuisances(w["d"], 1e3 + w["x"] * [1e-3, 1.0, 1e6, 7.0]))
    assert (moved.estimate, moved.std_error) == pytest.approx((3 * found.estimate, 3 * found.std_error), rel=1e-6)


def test_repeats_give_the_median_and_the_spread_between_splits() -> None:
    w = world(6)
    each = [aipw(w["y"], nuisances(w["d"], w["x"], seed=7919 * r)) for r in range(3)]
    found = aipw(w["y"], nuisances(w["d"], w["x"], repeats=3))
    middle = float(np.median([e.estimate for e in each]))
    error = math.sqrt(np.median([e.std_error**2 + (e.estimate - middle) ** 2 for e in each]))
    assert (found.estimate, found.std_error) == pytest.approx((middle, error), rel=1e-12)
    assert found.treatment_value - found.control_value == pytest.approx(found.estimate, rel=1e-12)


def test_trimming_leaves_rows_out_and_says_so() -> None:
    w = world(7, n=1000)
    shared = nuisances(w["d"], w["x"])
    e = shared.splits[0].propensity
    found = aipw(w["y"], shared, trim=0.2)
    share = float(((e < 0.2) | (e > 0.8)).mean())
    assert found.diagnostics["trimmed"] == pytest.approx(share)
    assert found.n_control + found.n_treatment == round(1000 * (1 - share)) == found.diagnostics["n_units"]
    assert found.diagnostics["weights"]["max_share"] < aipw(w["y"], shared).diagnostics["weights"]["max_share"]
    assert aipw(w["y"], shared).diagnostics["trimmed"] == 0.0


def test_rows_without_an_outcome_are_left_out_as_if_they_had_no_weight() -> None:
    w = world(8)
    shared = nuisances(w["d"], w["x"], penalty=0)
    gone = np.random.default_rng(1).random(len(w["y"])) < 0.2
    for method in METHODS.values():
        found = method(np.where(gone, np.nan, w["y"]), shared)
        assert found.diagnostics["rows_left_out"] == gone.sum()
        assert found.n_control + found.n_treatment == (~gone).sum()
        assert abs(found.estimate - 1.0) < 4 * found.std_error
    (means,) = potential_means(np.where(gone, np.nan, w["y"]), shared)
    assert not means.influence[:, gone].any()


def test_what_the_diagnostics_show() -> None:
    w = world(9, n=2000)
    shared = nuisances(w["d"], w["x"])
    shown = ipw(w["y"], shared).diagnostics
    e, d = shared.light.splits[0].propensity, w["d"]
    weights = np.where(d == 1, 1 / e, 1 / (1 - e))
    kish = [weights[d == arm].sum() ** 2 / (weights[d == arm] ** 2).sum() for arm in (0, 1)]
    assert list(shown["ess"].values()) == pytest.approx(kish)
    shares = [np.sort(weights[d == arm])[::-1] / weights[d == arm].sum() for arm in (0, 1)]
    assert shown["weights"]["max_share"] == pytest.approx(max(s[0] for s in shares))
    tops = [s[: round(0.01 * len(s))].sum() for s in shares]
    assert shown["weights"]["top_1pct_share"] == pytest.approx(max(tops))
    assert shown["propensity"]["min"] == pytest.approx(e.min())
    assert shown["propensity"]["quantiles"]["0.5"] == pytest.approx(np.median(e))
    pairs = (e[d == 1][:, None] > e[d == 0]).mean()
    assert shown["propensity"]["auc"] == pytest.approx(pairs)
    assert 0.05 < shown["propensity"]["explained"] < 0.3
    assert 0.4 < aipw(w["y"], shared).diagnostics["outcome_fit"]["control"] < 0.8


def test_a_penalty_is_chosen_that_predicts_and_collinear_columns_do_no_harm() -> None:
    w = world(10, n=200)
    rng = np.random.default_rng(2)
    noise = np.column_stack([w["x"], rng.normal(size=(200, 60))])
    errors = {p: abs(_log_loss(nuisances(w["d"], noise, penalty=p))) for p in ("cross_validated", "light")}
    assert errors["cross_validated"] < 0.8 * errors["light"]
    wide = np.column_stack([w["x"], 2.0 * w["x"][:, 0] + 1.0, np.ones(200)])
    for penalty in ("cross_validated", "light"):
        once, twice = (aipw(w["y"], nuisances(w["d"], x, penalty=penalty)) for x in (w["x"], wide))
        assert abs(once.estimate - twice.estimate) < 0.3 * once.std_error


def _log_loss(shared: Nuisances) -> float:
    e = shared.splits[0].propensity
    return -float(np.log(np.where(shared.treated, e, 1.0 - e)).mean())


@pytest.mark.parametrize("link", ["logit", "probit"])
@pytest.mark.parametrize("penalty", [0, 0.01])
def test_the_fit_is_that_of_a_general_optimiser(link: str, penalty: float) -> None:
    from scipy.optimize import minimize
    from scipy.special import log_ndtr

    w = world(11, n=300)
    z = np.column_stack([np.ones(300), (w["x"] - w["x"].mean(axis=0)) / w["x"].std(axis=0)])
    sign = 2.0 * w["d"] - 1.0

    def loss(b: Any) -> float:
        eta = sign * (z @ b)
        value = -log_ndtr(eta).mean() if link == "probit" else np.logaddexp(0.0, -eta).mean()
        return float(value + penalty / 2 * b[1:] @ b[1:])

    expected = minimize(loss, np.zeros(5), tol=1e-14).x
    model = nuisances(w["d"], w["x"], folds=1, propensity=link, penalty=penalty).splits[0].model
    assert model is not None
    assert model.coef[0] == pytest.approx(expected, abs=2e-6)


def test_boosting_finds_what_is_not_linear() -> None:
    rng = np.random.default_rng(12)
    x = rng.normal(size=(1200, 3))
    e = np.where(x[:, 0] * x[:, 1] > 0, 0.7, 0.3)
    d = (rng.random(1200) < e).astype(float)
    y = 5.0 + 2.0 * (x[:, 0] * x[:, 1] > 0) + d + 0.5 * rng.normal(size=1200)
    found = aipw(y, nuisances(d, x, propensity="boosting", outcome="boosting", folds=2))
    assert abs(found.estimate - 1.0) < 3 * found.std_error
    assert found.diagnostics["propensity"]["auc"] > 0.65
    assert found.diagnostics["outcome_fit"]["control"] > 0.5
    assert aipw(y, nuisances(d, x)).estimate > 1.5
    with pytest.raises(EstimationError, match="take aipw"):
        outcome_regression(y, nuisances(d, x, outcome="boosting"))


def test_a_share_by_logit_stays_within_0_and_1() -> None:
    w = world(13, n=1500)
    y = (w["y"] > 13.5).astype(float)
    found = aipw(y, nuisances(w["d"], w["x"], outcome="logit"))
    (means,) = potential_means(y, nuisances(w["d"], w["x"], outcome="logit"))
    assert means.outcomes is not None
    assert 0.0 < means.outcomes.control.min() < means.outcomes.control.max() < 1.0
    assert 0.0 < found.control_value < found.treatment_value < 1.0
    with pytest.raises(EstimationError, match="from 0 to 1"):
        aipw(w["y"], nuisances(w["d"], w["x"], outcome="logit"))


def refused(message: str, **changes: Any) -> None:
    w = world(14) | {"method": aipw, "options": {}, "how": {}} | changes
    with pytest.raises(EstimationError, match=message):
        w["method"](w["y"], nuisances(w["d"], w["x"], **w["options"]), **w["how"])


def test_what_the_data_cannot_carry_is_refused_in_words() -> None:
    w = world(14)
    n = len(w["d"])
    refused("control has no rows", d=np.ones(n))
    refused("treatment must be 0 or 1", d=w["d"] * 2)
    refused("treatment has 1 row, too few", d=np.arange(n) == 0)
    refused("not finite", x=np.where(np.arange(n)[:, None] == 3, np.nan, w["x"]))
    refused("not finite", y=np.where(np.arange(n) == 3, np.inf, w["y"]))
    refused("no row has an outcome", y=np.full(n, np.nan))
    refused("does not vary", y=np.full(n, 7.7))
    refused("one row per row", x=w["x"][1:])
    refused("as many units", options={"units": np.arange(n) % 3})
    refused("in two folds", options={"units": w["units"] // 2, "folds": np.arange(n) % 2})
    refused("combination of the others", x=np.column_stack([w["x"], w["x"][:, 0]]), options={"penalty": 0})
    refused("without fail", x=w["d"][:, None] + 0.1 * w["x"], options={"penalty": 0})
    refused("has 0 units left", how={"trim": 0.4999})
    perfect = {"x": w["d"][:, None], "options": {"propensity": "linear", "penalty": 0}}
    refused("there is no overlap for", **perfect)
    refused("denominator's mean is not positive", how={"denominator": -np.ones(n)})
    refused("same outcome", y=np.where(w["d"] == 1, 1.0, np.arange(n) % 2), options={"outcome": "logit"})
    for options in ({"propensity": "forest"}, {"outcome": "probit"}, {"repeats": 0}, {"penalty": -1.0}):
        with pytest.raises(ValueError, match="must be"):
            nuisances(w["d"], w["x"], **options)
    for how in ({"estimand": "atc"}, {"trim": 0.7}):
        with pytest.raises(ValueError, match="must"):
            aipw(w["y"], nuisances(w["d"], w["x"]), **how)


def test_small_and_odd_data_give_finite_numbers_or_a_refusal() -> None:
    rng = np.random.default_rng(15)
    for case in range(48):
        n, p = int(rng.integers(6, 40)), int(rng.integers(0, 12))
        x = np.where(rng.random((n, p)) < 0.5, 0.0, rng.normal(size=(n, p)) ** 5)
        d, y = (rng.random(n) < 0.4).astype(float), np.round(rng.normal(size=n))
        method, estimand = list(METHODS.values())[case % 4], ("ate", "att", "overlap")[case % 3]
        try:
            found: Estimate = method(y, nuisances(d, x, folds=1 + case % 3), estimand=estimand)
        except EstimationError:
            continue
        assert all(map(math.isfinite, (found.estimate, found.std_error, found.ci_low, found.ci_high)))


def test_a_linear_propensity_beyond_0_and_1_is_called_that() -> None:
    draw = np.random.default_rng(3)
    x = draw.normal(size=(500, 1))
    treated = draw.random(500) < 1.0 / (1.0 + np.exp(-3.0 * x[:, 0]))
    with pytest.raises(EstimationError, match="the linear model puts the probability"):
        aipw(x[:, 0], nuisances(treated, x, propensity="linear"))
