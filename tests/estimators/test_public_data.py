"""Estimators against other implementations on public data; ``oracles/public_data.py`` makes files and constants."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from estimators.block_regression import Cells, block_regression
from estimators.cluster_means import Clusters, cluster_means
from estimators.cluster_robust import cluster_robust
from estimators.clustered_difference import Cells as ClusterSums
from estimators.clustered_difference import clustered_difference
from estimators.cuped import cuped
from estimators.difference_in_means import difference_in_means
from estimators.joint_moments import JointMoments
from estimators.moments import Moments
from estimators.ols import fit
from estimators.randomization_inference import randomization_inference
from estimators.regression_adjusted import regression_adjusted
from estimators.stratified import StratifiedArm, stratified
from estimators.trimmed import trimmed
from estimators.winsorized import winsorized

DATA = Path(__file__).parent / "data"

# tea-tasting 1.14.0 on nsw.csv: control, treatment, difference, its interval at 95 %, p-value.
TEA_TASTING = {
    "welch": (
        4554.8011153846155,
        6349.143351351351,
        1794.3422359667356,
        474.010294457127,
        3114.674177476344,
        0.007892983813772445,
    ),
    "cuped": (
        4574.4270785017825,
        6321.560916700198,
        1747.133838198415,
        430.80185849266763,
        3063.4658179041626,
        0.009451956412367724,
    ),
    "ratio": (
        3.5952077973908274,
        4.1441997155984485,
        0.548991918207621,
        -1.2753379575571782,
        2.37332179397242,
        0.5544284945589104,
    ),
}
# pyfixest 0.60.0 on the households of insurance.csv, errors by natural village, no small-sample factors.
PYFIXEST = {
    "alike": {"estimate": 0.10564686501215395, "CR1": 0.03362349126177378, "CR3": 0.034111174562437827},
    "strata": {"estimate": 0.10612096202525725, "CR1": 0.02872069485084945, "CR3": 0.03860980589965209},
}


def table(name: str) -> dict[str, np.ndarray]:
    """Columns of a file by name, text as text."""
    rows = [line.split(",") for line in (DATA / name).read_text(encoding="utf-8").split()]
    return {head: _numbers(values) for head, *values in zip(*rows, strict=True)}


def _numbers(values: list[str]) -> np.ndarray:
    try:
        return np.array(values, dtype=float)
    except ValueError:
        return np.array(values)


@pytest.fixture(scope="module")
def nsw() -> dict[str, np.ndarray]:
    return table("nsw.csv")


@pytest.fixture(scope="module")
def villages() -> dict[str, np.ndarray]:
    return table("insurance.csv")


def sides(data: dict[str, np.ndarray], name: str) -> list[np.ndarray]:
    return [data[name][data["treat"] == a] for a in (0, 1)]


def clusters(data: dict[str, np.ndarray], **more: Any) -> Clusters:
    return Clusters(data["insured"], data["households"], data["default"], **more)


def households(data: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The single households again: outcome, and the natural village of each."""
    n, insured = data["households"].astype(int), data["insured"].astype(int)
    y = np.concatenate([np.arange(k) < s for k, s in zip(n, insured, strict=True)]).astype(float)
    return y, np.repeat(np.arange(len(n)), n)


def tea_tasting(e: Any) -> tuple[float, ...]:
    return (e.control_value, e.treatment_value, e.estimate, e.ci_low, e.ci_high, e.p_value)


def test_the_job_training_experiment_has_its_published_effect(nsw: dict[str, np.ndarray]) -> None:
    e = difference_in_means(*(Moments.from_arrays(y) for y in sides(nsw, "re78")))
    assert tea_tasting(e) == pytest.approx(TEA_TASTING["welch"], rel=1e-9)
    assert round(e.estimate) == 1794  # dollars; Dehejia and Wahba (1999), table 3


def test_ratio_and_cuped_agree_with_tea_tasting(nsw: dict[str, np.ndarray]) -> None:
    y, before = sides(nsw, "re78"), sides(nsw, "re75")
    ratio = difference_in_means(*(Moments.from_arrays(a, b) for a, b in zip(y, before, strict=True)))
    assert tea_tasting(ratio) == pytest.approx(TEA_TASTING["ratio"], rel=1e-9)
    arms = (JointMoments.from_arrays((a, None), (b, None)) for a, b in zip(y, before, strict=True))
    assert tea_tasting(cuped(*arms)) == pytest.approx(TEA_TASTING["cuped"], rel=1e-9)


def test_regression_adjustment_is_statsmodels_hc2(nsw: dict[str, np.ndarray]) -> None:
    import statsmodels.api as sm

    x = np.column_stack([nsw[c] for c in ("age", "educ", "black", "hisp", "marr", "nodegree", "re74", "re75")])
    centred, arm = x - x.mean(axis=0), nsw["treat"]
    design = np.column_stack([np.ones(len(x)), arm, centred, arm[:, None] * centred])
    theirs = sm.OLS(nsw["re78"], design).fit(cov_type="HC2", use_t=True)
    ours = regression_adjusted(nsw["re78"], arm, x)
    assert ours.estimate == pytest.approx(theirs.params[1], rel=1e-9)
    assert ours.std_error == pytest.approx(theirs.bse[1], rel=1e-9)


def test_strata_are_the_saturated_regression_of_statsmodels(nsw: dict[str, np.ndarray]) -> None:
    """Stratum dummies, centred and interacted with the arm, HC2: Neyman's error within strata."""
    import statsmodels.api as sm

    stratum, arm = 2 * nsw["black"] + nsw["nodegree"], nsw["treat"]
    dummies = np.column_stack([stratum == k for k in (1, 2, 3)]).astype(float)
    centred = dummies - dummies.mean(axis=0)
    design = np.column_stack([np.ones(len(arm)), arm, centred, arm[:, None] * centred])
    theirs = sm.OLS(nsw["re78"], design).fit(cov_type="HC2")
    ours = stratified(*(StratifiedArm(nsw["re78"][arm == a], None, stratum[arm == a]).moments() for a in (0, 1)))
    assert ours.estimate == pytest.approx(theirs.params[1], rel=1e-9)
    assert ours.std_error == pytest.approx(theirs.bse[1], rel=1e-9)


def test_trimmed_means_are_scipys_yuen_test(nsw: dict[str, np.ndarray]) -> None:
    from scipy.stats import ttest_ind

    control, treatment = sides(nsw, "re78")
    theirs = ttest_ind(treatment, control, trim=0.1, equal_var=False)
    ours = trimmed(control, treatment, quantile=0.9)
    found = (ours.statistic, ours.df, ours.p_value, ours.ci_low, ours.ci_high)
    assert found == pytest.approx((theirs.statistic, theirs.df, theirs.pvalue, *theirs.confidence_interval()), rel=1e-9)


def test_winsorized_means_are_scipys_welch_test_of_capped_values(nsw: dict[str, np.ndarray]) -> None:
    from scipy.stats import ttest_ind

    cap = np.quantile(nsw["re78"], 0.95, method="inverted_cdf")
    control, treatment = (np.minimum(y, cap) for y in sides(nsw, "re78"))
    theirs = ttest_ind(treatment, control, equal_var=False)
    ours = winsorized(*((y, None) for y in sides(nsw, "re78")), quantile=0.95)
    assert (ours.statistic, ours.df, ours.p_value) == pytest.approx(
        (theirs.statistic, theirs.df, theirs.pvalue), rel=1e-9
    )


@pytest.mark.parametrize("kind", ["CR1", "CR2"])
def test_persons_in_villages_have_the_clustered_error_of_their_regression(kind: str) -> None:
    """Incentives drawn by person, in 119 villages; CR1 by statsmodels, CR2 by the rows' own regression."""
    import statsmodels.api as sm

    data = table("hiv.csv")
    n, learned = data["persons"].astype(int), data["learned"].astype(int)
    y = np.concatenate([np.arange(k) < s for k, s in zip(n, learned, strict=True)]).astype(float)
    village, arm = np.repeat(data["villnum"], n), np.repeat(data["any"], n)
    x = sm.add_constant(arm)
    found = clustered_difference(
        ClusterSums(data["learned"], data["persons"], data["persons"], data["any"], data["villnum"]), variance=kind
    )
    if kind == "CR1":
        theirs = sm.OLS(y, x).fit(cov_type="cluster", cov_kwds={"groups": village})
        assert (found.estimate, found.std_error) == pytest.approx((theirs.params[1], theirs.bse[1]), rel=1e-9)
    else:
        expected = fit(x, y, groups=village).contrast([0.0, 1.0])
        assert (found.estimate, found.std_error, found.df) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("kind", ["CR1", "CR3"])
@pytest.mark.parametrize("design", ["alike", "strata"])
def test_villages_have_the_errors_of_pyfixest(villages: dict[str, np.ndarray], kind: str, design: str) -> None:
    strata = villages["village"] if design == "strata" else None
    ours = cluster_robust(clusters(villages, strata=strata), variance=kind)
    n, g = villages["households"].sum(), len(villages["households"])
    k = 2 if strata is None else 1 + len(np.unique(strata))
    factor = {"CR1": g / (g - 1) * (n - 1) / (n - k), "CR3": 1.0}[kind]
    assert ours.estimate == pytest.approx(PYFIXEST[design]["estimate"], rel=1e-9)
    assert ours.std_error == pytest.approx(PYFIXEST[design][kind] * factor**0.5, rel=1e-9)


def test_villages_have_the_clustered_error_of_statsmodels(villages: dict[str, np.ndarray]) -> None:
    import statsmodels.api as sm

    y, village = households(villages)
    x = sm.add_constant(villages["default"][village])
    theirs = sm.OLS(y, x).fit(cov_type="cluster", cov_kwds={"groups": village})
    ours = cluster_robust(clusters(villages), variance="CR1")
    assert ours.estimate == pytest.approx(theirs.params[1], rel=1e-9)
    assert ours.std_error == pytest.approx(theirs.bse[1], rel=1e-9)


def test_cr2_of_villages_is_that_of_their_households(villages: dict[str, np.ndarray]) -> None:
    y, village = households(villages)
    rows = fit(np.column_stack([np.ones(len(y)), villages["default"][village]]), y, groups=village)
    ours = cluster_robust(clusters(villages))
    assert (ours.estimate, ours.std_error, ours.df) == pytest.approx(rows.contrast([0.0, 1.0]), rel=1e-9)


def test_cluster_means_are_scipys_welch_test(villages: dict[str, np.ndarray]) -> None:
    from scipy.stats import ttest_ind

    means = villages["insured"] / villages["households"]
    arms = [means[villages["default"] == a] for a in (1, 0)]
    theirs = ttest_ind(*arms, equal_var=False)
    ours = cluster_means(clusters(villages), weights="units")
    assert ours.statistic == pytest.approx(theirs.statistic, rel=1e-9)
    assert ours.p_value == pytest.approx(theirs.pvalue, rel=1e-9)
    assert ours.df == pytest.approx(theirs.df, rel=1e-9)
    assert (ours.ci_low, ours.ci_high) == pytest.approx(tuple(theirs.confidence_interval()), rel=1e-9)


def test_few_villages_have_the_wild_bootstrap_of_wildboottest(villages: dict[str, np.ndarray]) -> None:
    """wildboottest 0.3.2 counts 2,456 of all 4,096 patterns as larger, without the two that give the data back."""
    chosen = np.isin(villages["address"], np.sort(villages["address"])[:12])
    ours = cluster_robust(clusters({k: v[chosen] for k, v in villages.items()}), variance="wild")
    assert ours.statistic == pytest.approx(-0.547581, abs=5e-7)
    assert ours.p_value == (2456 + 2) / 4096


def by_scipy(y: np.ndarray, arm: np.ndarray) -> float:
    """p-value over all assignments with as many treated, by the size of Welch's statistic."""
    from scipy.stats import permutation_test, ttest_ind

    def welch(a: np.ndarray, b: np.ndarray, axis: int) -> np.ndarray:
        return np.round(np.abs(ttest_ind(a, b, axis=axis, equal_var=False).statistic), 9)

    sides = (y[arm == 1], y[arm == 0])
    return float(permutation_test(sides, welch, n_resamples=np.inf, alternative="greater").pvalue)


def test_the_exact_test_of_villages_is_scipys(villages: dict[str, np.ndarray]) -> None:
    chosen = np.isin(villages["address"], np.sort(villages["address"])[:12])
    few = {k: v[chosen] for k, v in villages.items()}
    ours = randomization_inference(clusters(few), weights="units")
    assert ours.diagnostics["exact"]
    assert ours.p_value == pytest.approx(by_scipy(few["insured"] / few["households"], few["default"]), abs=1e-12)


def test_the_exact_test_of_eight_people_is_scipys() -> None:
    """causaldata's ``ri`` (Cunningham 2021, *Causal Inference: The Mixtape*, ch. 4)."""
    y, arm = np.array([10, 5, 16, 3, 5, 7, 8, 10.0]), np.array([1, 1, 1, 1, 0, 0, 0, 0])
    ours = randomization_inference(Clusters(y, np.ones(8), arm))
    assert (ours.estimate, ours.diagnostics["draws"]) == (pytest.approx(1.0), 70)
    assert ours.p_value == pytest.approx(by_scipy(y, arm), abs=1e-12)


# dfadjust (M. Kolesár) 1.1.0, its own tests: HC1 errors made by Stata, HC2 errors and degrees of freedom (Bell and
# McCaffrey 2002, Imbens and Kolesár 2016) of the R package.
def _recycled() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    k = np.arange(1, 11)
    y, x = np.r_[np.cos(k - 1), np.tan(k)], np.r_[np.sin(k), np.sin(k + 1)]
    return np.column_stack([np.ones(20), x]), y, np.tile([2, 1, 3, 2, 2, 3, 3, 1, 1, 2], 2)


def test_published_hc2_and_degrees_of_freedom() -> None:
    x, y, _ = _recycled()
    rows = fit(x, y)
    found = np.array([rows.contrast(c) for c in np.eye(2)])
    assert found[:, 0] == pytest.approx([-0.4456202905, 0.3241183110], abs=1e-10)
    assert found[:, 1] == pytest.approx([0.4227339762, 0.4421048122], abs=1e-10)
    assert found[:, 2] == pytest.approx([17.6142349, 12.10389102], rel=1e-8)
    k = np.arange(1, 11)
    sines = fit(np.column_stack([np.ones(10), np.sin(k), np.sin(k + 1)]), k)
    assert [sines.contrast(c)[2] for c in np.eye(3)] == pytest.approx([4.94624731, 3.90754737, 4.77265484], abs=1e-8)


def test_published_clustered_errors() -> None:
    x, y, groups = _recycled()
    clustered = fit(x, y, groups=groups)
    stata = np.sqrt(np.diag(clustered.covariance("CR1")))
    assert stata == pytest.approx([0.4827602183, 0.1814501834], abs=1e-10)
    k = np.arange(1, 101)
    sine, groups = np.sin(k), np.repeat([1, 5, 2, 3, 4], [40, 20, 20, 10, 10])
    square = fit(np.column_stack([np.ones(100), sine, sine**2]), k, groups=groups)
    assert np.sqrt(square.covariance("CR1")[1, 1]) == pytest.approx(2.344474843, abs=1e-9)
    assert square.contrast([0, 1, 0])[:2] == pytest.approx((-1.955355241, 2.460094992), abs=1e-9)
    more = fit(np.column_stack([np.ones(100), sine, sine**2, np.sin(sine)]), k, groups=groups)
    assert more.contrast([0, 0, 0, 1])[:2] == pytest.approx((-13.36138026, 18.62369808), abs=1e-8)


def grunfeld(together: bool) -> tuple[Cells, np.ndarray]:
    """Investment of firms by year as cells, with a made-up arm; weights are the firms' capital."""
    from statsmodels.datasets import grunfeld as source

    data = source.load_pandas().data
    firm, year = np.unique(data["firm"], return_inverse=True)[1], data["year"].to_numpy().astype(int) - 1935
    arm = (year * 7 + (0 if together else 3 * firm)) % 5 % 2
    den = np.round(data["capital"].to_numpy()) + 1.0
    # With twenty blocks together there is no room for a calendar.
    odd = np.zeros(len(arm)) if together else year % 2
    cells = Cells(
        data["invest"].to_numpy() * den, den, arm, firm, year, np.zeros(len(arm)), odd,
        tuple(str(f) for f in np.unique(data["firm"])),
    )  # fmt: skip
    dummies = [(firm == f).astype(float) for f in np.unique(firm)[1:]]
    return cells, np.column_stack([np.ones(len(arm)), arm, *dummies, *([] if together else [odd])])


def test_block_regression_is_statsmodels_weighted_regression() -> None:
    import statsmodels.api as sm

    cells, x = grunfeld(together=False)
    theirs = sm.WLS(cells.num / cells.den, x, weights=cells.den).fit(cov_type="HC2")
    ours = block_regression(cells)
    assert ours.estimate == pytest.approx(theirs.params[1], rel=1e-9)
    assert ours.std_error == pytest.approx(theirs.bse[1], rel=1e-9)
    alike = sm.OLS(cells.num / cells.den, x).fit(cov_type="HC2")
    ours = block_regression(cells, weights="units")
    assert (ours.estimate, ours.std_error) == pytest.approx((alike.params[1], alike.bse[1]), rel=1e-9)


def test_blocks_together_have_the_clustered_score_of_statsmodels() -> None:
    import statsmodels.api as sm

    cells, x = grunfeld(together=True)
    y = cells.num / cells.den
    theirs = sm.WLS(y, x, weights=cells.den).fit(cov_type="cluster", cov_kwds={"groups": cells.block})
    assert block_regression(cells, clustered_by="block").estimate == pytest.approx(theirs.params[1], rel=1e-9)
    cr1 = fit(x, y, cells.den, cells.block).covariance("CR1")
    assert cr1[1, 1] ** 0.5 == pytest.approx(theirs.bse[1], rel=1e-9)


def test_lagged_errors_are_statsmodels_driscoll_kraay() -> None:
    import statsmodels.api as sm

    cells, x = grunfeld(together=True)
    order = np.argsort(cells.block, kind="stable")
    theirs = sm.WLS((cells.num / cells.den)[order], x[order], weights=cells.den[order]).fit(
        cov_type="hac-groupsum", cov_kwds={"time": cells.block[order], "maxlags": 3, "use_correction": False}
    )
    ours = block_regression(cells, clustered_by="block", hac=3)
    blocks, parameters = len(np.unique(cells.block)), x.shape[1]
    assert ours.estimate == pytest.approx(theirs.params[1], rel=1e-9)
    assert ours.std_error == pytest.approx(theirs.bse[1] * (blocks / (blocks - parameters)) ** 0.5, rel=1e-9)
