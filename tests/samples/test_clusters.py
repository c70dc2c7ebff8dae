"""Cluster-randomized experiments against DuckDB's sums, scipy's tests and statsmodels on the rows."""

from __future__ import annotations

import math

import duckdb
import numpy as np
import polars as pl
import pytest

from readout import checks
from readout.errors import LogError

DESIGN = {"kind": "cluster_rct", "control": "old", "treatment": "new"}
COLUMNS = {"arm": "arm", "cluster": "region", "unit": "user"}


def log(clusters: int = 24, arms: tuple[str, ...] = ("old", "new"), seed: int = 5) -> pl.DataFrame:
    """Clusters of unlike sizes in pairs of neighbours; the arms take turns within a pair."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(20, 90, clusters)
    code = np.repeat(np.arange(clusters), sizes)
    n = len(code)
    arm = code % len(arms)
    level = rng.normal(0, 0.3, clusters)[code]
    frame = pl.DataFrame(
        {
            "region": [f"r{c:03d}" for c in code],
            "arm": np.array(arms)[arm],
            "user": rng.integers(0, 40, n),
            "pair": code // 2,
            "size": np.array(["small", "large"])[code // 2 % 2],
            "zone": np.array(["east", "west"])[code // 4 % 2],
            "ms": pl.Series(rng.lognormal(3 + level + 0.2 * arm, 0.5)).set(pl.Series(rng.random(n) < 0.05), None),
            "tokens": rng.integers(1, 400, n),
            "cost": rng.gamma(2, 1, n),
            "success": (rng.random(n) < 0.5).astype(int),
            "eligible": rng.random(n) < 0.7,
            "tier": np.array(["a", "b", "c"])[rng.integers(0, 3, n)],
        }
    )
    return frame.sample(fraction=1.0, shuffle=True, seed=seed)


@pytest.fixture
def clustered(gather):
    def of(frame, metrics=None, **changes):
        given = {"logs__columns": COLUMNS, "design": DESIGN, **changes}
        return gather(frame, metrics or {"m": {"column": "ms"}}, **given)

    return of


def by_cluster(frame: pl.DataFrame, select: str, where: str = "true") -> list[tuple[np.ndarray, ...]]:
    """One tuple of columns an arm, a row a cluster, by DuckDB."""
    table = duckdb.sql(
        f"select arm, region, {select} from frame where {where} group by all order by region"
    ).fetchnumpy()
    names = [n for n in table if n not in ("arm", "region")]
    return [tuple(np.asarray(table[n][table["arm"] == a], float) for n in names) for a in ("old", "new")]


def ols(frame: pl.DataFrame, formula: str, groups: str = "region"):
    """Least squares of rows with errors clustered by group (CR1)."""
    import statsmodels.formula.api as smf

    rows = frame.drop_nulls("ms").with_columns(t=(pl.col("arm") == "new").cast(pl.Int64)).to_pandas()
    codes = rows[groups].astype("category").cat.codes
    return smf.ols(formula, rows).fit(cov_type="cluster", cov_kwds={"groups": codes}, use_t=True)


def test_clusters_count_alike_by_default(clustered, oracle) -> None:
    frame = log()
    evidence = clustered(frame)
    (old,), (new,) = by_cluster(frame, "avg(ms) m")
    oracle.agrees(evidence.effect("m", 1), oracle.welch(old, new))
    assert evidence.sample.unit == "cluster"
    assert evidence.sample.counts() == [12, 12]
    assert evidence.total("m|null") == frame["ms"].null_count()


def test_rows_may_be_weighed_instead(clustered, oracle) -> None:
    frame = log()
    evidence = clustered(frame, estimator={"method": "cluster_means", "weights": "rows"})
    oracle.agrees(evidence.effect("m", 1), oracle.ratio(by_cluster(frame, "sum(ms) s, count(ms) c")))


@pytest.mark.parametrize(
    ("design", "formula", "groups"),
    [({}, "ms ~ t", "region"), ({"strata": "size"}, "ms ~ t + size", "region"),
     ({"strata": ["size", "zone"]}, "ms ~ t + size * zone", "region")],
)  # fmt: skip
def test_cluster_robust_is_least_squares_of_the_rows(clustered, design, formula, groups) -> None:
    frame = log()
    changes = {"design": {**DESIGN, **design}, "estimator": {"method": "cluster_robust", "variance": "CR1"}}
    found = clustered(frame, **changes).effect("m", 1)
    fit = ols(frame, formula, groups)
    assert found.estimate == pytest.approx(fit.params["t"], rel=1e-9)
    assert found.std_error == pytest.approx(fit.bse["t"], rel=1e-9)
    assert found.p_value == pytest.approx(fit.pvalues["t"], rel=1e-8)
    assert (found.ci_low, found.ci_high) == pytest.approx(tuple(fit.conf_int().loc["t"]), rel=1e-9)


def test_pairs_are_the_paired_t_test(clustered) -> None:
    from scipy import stats

    frame = log()
    found = clustered(frame, design={**DESIGN, "pairs": "pair"}).effect("m", 1)
    (old,), (new,) = by_cluster(frame, "avg(ms) m")
    theirs = stats.ttest_rel(new, old)
    assert found.p_value == pytest.approx(theirs.pvalue, rel=1e-9)
    assert found.df == theirs.df == 11
    assert found.diagnostics["n_pairs"] == 12


def test_strata_are_averaged_over_their_clusters(clustered) -> None:
    frame = log()
    found = clustered(frame, design={**DESIGN, "strata": "size"}).effect("m", 1)
    effects, variances = [], []
    for size in ("small", "large"):
        (old,), (new,) = by_cluster(frame, "avg(ms) m", f"size = '{size}'")
        effects.append(new.mean() - old.mean())
        variances.append(new.var(ddof=1) / len(new) + old.var(ddof=1) / len(old))
    assert found.estimate == pytest.approx(np.mean(effects), rel=1e-9)
    assert found.std_error == pytest.approx(math.sqrt(sum(variances) / 4), rel=1e-9)


def test_every_assignment_is_drawn_again(clustered) -> None:
    """Ten clusters in pairs: all 32 assignments, by the difference of linearized rows."""
    frame = log(10)
    changes = {"design": {**DESIGN, "pairs": "pair"}, "estimator": "randomization_inference"}
    found = clustered(frame, **changes, decision__alpha=0.1).effect("m", 1)
    assert (found.diagnostics["mechanism"], found.diagnostics["draws"], found.diagnostics["exact"]) == (
        "paired",
        32,
        True,
    )
    assert found.p_value * 32 == pytest.approx(round(found.p_value * 32), abs=1e-9)
    robust = clustered(frame, design={**DESIGN, "pairs": "pair"}, estimator="cluster_robust").effect("m", 1)
    assert found.estimate == pytest.approx(robust.estimate, rel=1e-12)


@pytest.mark.parametrize("estimator", ["randomization_inference", {"method": "cluster_robust", "variance": "wild"}])
def test_the_seed_reaches_what_is_drawn(world, estimator) -> None:
    changes = {"logs.columns": COLUMNS, "design": DESIGN, "metrics.errors": None, "estimator": estimator}
    seen = [world.readout(log(), changes, seed=seed).metrics[0] for seed in (1, 1, 2)]
    assert seen[0] == seen[1]
    assert seen[0].estimate == seen[2].estimate
    assert seen[0].ci_low != seen[2].ci_low


def test_a_ratio_and_sums_within_units(clustered, oracle) -> None:
    frame = log().with_columns(user=pl.when(pl.col("user") != 3).then("user"))
    metrics = {"c": {"numerator": "cost", "denominator": "success"}, "u": {"column": "tokens", "per": "unit"}}
    evidence = clustered(frame, metrics, estimator={"method": "cluster_means", "weights": "rows"})
    oracle.agrees(evidence.effect("c", 1), oracle.ratio(by_cluster(frame, "sum(cost) c, sum(success) s")))
    units = by_cluster(frame, 'sum(tokens) t, count(distinct "user") u', '"user" is not null')
    oracle.agrees(evidence.effect("u", 1), oracle.ratio(units))
    alike = clustered(frame, {"u": {"column": "tokens", "per": "unit"}})
    oracle.agrees(alike.effect("u", 1), oracle.welch(*(t / u for t, u in units)))


def test_ineligible_rows_count_for_a_policy_acts_on_all_traffic(clustered, oracle) -> None:
    frame = log()
    evidence = clustered(frame, logs__columns={**COLUMNS, "eligible": "eligible"})
    (old,), (new,) = by_cluster(frame, "avg(ms) m")
    oracle.agrees(evidence.effect("m", 1), oracle.welch(old, new))
    assert evidence.rows().kept == frame.height


def test_several_treatment_arms_each_against_control(clustered, oracle) -> None:
    frame = log(27, arms=("old", "new", "third"))
    evidence = clustered(frame, design={**DESIGN, "treatment": ["third", "new"]})
    assert evidence.sample.counts() == [9, 9, 9]
    for code, other in enumerate(("third", "new"), start=1):
        pair = frame.filter(pl.col("arm").is_in(["old", other])).with_columns(pl.col("arm").replace(other, "new"))
        (old,), (new,) = by_cluster(pair, "avg(ms) m")
        oracle.agrees(evidence.effect("m", code), oracle.welch(old, new))


def test_a_quantile_takes_clusters_as_groups(clustered) -> None:
    from estimators.quantiles import Histogram, quantile_effect

    frame = log().drop_nulls("ms")
    found = clustered(frame, {"q": {"column": "ms", "quantile": 0.5}}).effect("q", 1)
    values = np.sort(frame["ms"].unique().to_numpy())
    arms = []
    for arm in ("old", "new"):
        groups = frame.filter(pl.col("arm") == arm).sort("region").partition_by("region")
        counts = np.array([np.isin(values, g["ms"].to_numpy()) for g in groups]).astype(int)
        arms.append(Histogram(values, values, counts))
    exact = quantile_effect(*arms, 0.5)
    assert (found.n_control, found.n_treatment) == (12, 12)
    assert found.control_value == pytest.approx(exact.control_value, rel=0.01)
    assert found.treatment_value == pytest.approx(exact.treatment_value, rel=0.01)
    assert found.std_error == pytest.approx(exact.std_error, rel=0.1)


def test_rows_without_a_cluster_are_dropped_and_counted(clustered) -> None:
    frame = log().with_columns(region=pl.when(pl.col("user") != 9).then("region"))
    evidence = clustered(frame)
    assert evidence.rows().dropped == {"no cluster": frame["region"].null_count()}


def test_a_torn_cluster_is_left_out_and_a_stray_row_alone(clustered, oracle) -> None:
    """r000 carries both arms by halves; of r001's many rows one is astray."""
    frame = log()
    big = pl.concat([frame, *[frame.filter(region="r001")] * 3]).with_row_index()
    half = (pl.col("region") == "r000") & (pl.col("index") % 2 == 0)
    first = big.filter(region="r001")["index"][0]
    astray = half | (pl.col("index") == first)
    other = pl.col("arm").replace({"old": "new", "new": "old"})
    torn = big.with_columns(arm=pl.when(astray).then(other).otherwise("arm"))
    evidence = clustered(torn.drop("index"))
    assert evidence.rows().dropped == {
        "cluster seen in two arms": big.filter(region="r000").height, "arm differs from its cluster's": 1,
    }  # fmt: skip
    assert evidence.sample.mixed() == (2, 24)
    assert evidence.sample.counts() == [11, 12]
    (old,), (new,) = by_cluster(big.filter((pl.col("region") != "r000") & (pl.col("index") != first)), "avg(ms) m")
    oracle.agrees(evidence.effect("m", 1), oracle.welch(old, new))
    found = {c.name: c for c in (one(evidence) for one in checks.before_effects("cluster_rct"))}
    assert found["arm_contamination"].status == "fail"
    assert found["arm_contamination"].message == "2 of 24 clusters carry more than one arm (8.33 %)"


def test_how_alike_rows_of_a_cluster_are(clustered) -> None:
    frame = log().drop_nulls("ms").with_columns(ms=pl.col("ms") + 1e7)
    found = clustered(frame).effect("m", 1).diagnostics
    between = within = unequal = 0.0
    for _, arm in frame.group_by("arm"):
        groups = [g["ms"].to_numpy() for g in arm.partition_by("region")]
        mean = arm["ms"].mean()
        between += sum(len(g) * (g.mean() - mean) ** 2 for g in groups)
        within += sum(((g - g.mean()) ** 2).sum() for g in groups)
        unequal += sum(len(g) ** 2 for g in groups) / arm.height
    msb, msw, m0 = between / 22, within / (frame.height - 24), (frame.height - unequal) / 22
    icc = (msb - msw) / (msb + (m0 - 1) * msw)
    assert found["intraclass_correlation"] == pytest.approx(icc, rel=1e-6)
    sizes = frame.group_by("region").len()["len"].to_numpy()
    assert found["design_effect"] == pytest.approx(1 + ((sizes**2).sum() / sizes.sum() - 1) * icc, rel=1e-6)
    assert (found["clusters_control"], found["clusters_treatment"]) == (12, 12)


@pytest.mark.parametrize("key", ["strata", "pairs"])
def test_a_label_that_varies_within_a_cluster(clustered, key) -> None:
    with pytest.raises(LogError) as caught:
        clustered(log(), design={**DESIGN, key: "tier"})
    (problem,) = caught.value.problems
    assert "column 'tier' varies within 24 of 24 clusters, such as 'r000', which has 'a' and 'c'" in problem.message
    assert "spec.yaml:" in problem.where
    assert "fixed before its assignment" in problem.hint


def test_labels_that_are_null_missing_or_no_labels(clustered) -> None:
    frame = log().with_columns(zone=pl.when(pl.col("region") != "r004").then("zone"), pair=pl.concat_list("pair"))
    rows = frame.filter(region="r004").height
    with pytest.raises(LogError, match=f"column 'zone' is null on {rows} kept rows, of 1 clusters"):
        clustered(frame, design={**DESIGN, "strata": "zone"})
    with pytest.raises(LogError) as caught:
        clustered(frame, design={**DESIGN, "strata": ["siz"], "pairs": "pair"}, logs__columns={"arm": "arm"})
    said = "; ".join(p.message for p in caught.value.problems)
    assert "the design cluster_rct needs a column for the role 'cluster'" in said
    assert "the log has no column 'siz'" in said
    assert "column 'pair' is List(Int64); expected text, numbers or booleans" in said


def test_labels_of_rows_that_are_left_out_do_not_matter(clustered) -> None:
    frame = log().with_columns(zone=pl.when(pl.col("user") != 3).then("zone"))
    evidence = clustered(frame, design={**DESIGN, "strata": "zone"}, logs__where='"user" <> 3')
    assert evidence.effect("m", 1).n_control == 12


def test_features_are_compared_cluster_by_cluster(clustered, oracle) -> None:
    frame = log()
    evidence = clustered(frame, logs__columns={**COLUMNS, "features": ["tokens", "tier"]})
    found = next(
        c for c in (one(evidence) for one in checks.before_effects("cluster_rct")) if c.name == "covariate_balance"
    )
    rows = {row["covariate"]: row for row in found.details["balance"]}
    (old,), (new,) = by_cluster(frame, "avg(tokens) t")
    assert rows["tokens"]["p_value"] == pytest.approx(oracle.welch(old, new)["p_value"], rel=1e-9)
    shares = [by_cluster(frame, f"avg((tier = '{tier}')::int) s") for tier in "abc"]
    p = min(1.0, 3 * min(oracle.welch(old, new)["p_value"] for (old,), (new,) in shares))
    assert rows["tier"]["p_value"] == pytest.approx(p, rel=1e-9)


def test_one_cluster_that_carries_the_effect_is_found(clustered) -> None:
    frame = log().with_columns(ms=pl.when(pl.col("region") == "r005").then(pl.col("ms") * 400).otherwise("ms"))
    evidence = clustered(frame, {"m": {"column": "ms"}})
    rest = evidence.sample.without_most_influential(evidence.terms["m"], 1, 0.05)
    (old,), (new,) = by_cluster(frame, "avg(ms) m", "region <> 'r005'")
    assert rest.estimate == pytest.approx(new.mean() - old.mean(), rel=1e-9)
    assert rest.diagnostics["left_out"] == ["r005"]


RUN = {"logs.columns": COLUMNS, "design": DESIGN, "metrics.errors": None}


def test_the_memo_says_how_clusters_were_assigned(world) -> None:
    design = {**DESIGN, "strata": ["size", "zone"], "pairs": "pair"}
    readout = world.readout(log(), {**RUN, "design": design})
    assert readout.assignment == (
        "Clusters were assigned as wholes, within strata of size, zone and pairs: 12 to 'old', 12 to 'new'."
    )
    assert (readout.design["strata"], readout.design["pairs"]) == (["size", "zone"], "pair")
    (m,) = readout.metrics
    assert (m.unit, m.method, m.n_control) == ("cluster", "cluster_means", 12)
    assert m.estimand == "difference of the mean over rows; clusters count alike"
    status = {c.name: c.status for c in readout.checks}
    assert (status["unit_of_randomization"], status["untreated_outcomes"]) == ("skip", "skip")
    assert (status["srm"], status["arm_contamination"], status["tail_dominance"]) == ("pass", "pass", "pass")
    assert readout.diagnostics["latency (new)"]["n_pairs"] == 12


@pytest.mark.parametrize(
    ("clusters", "estimator", "words"),
    [
        (10, "cluster_means", "it rests on 10 clusters, fewer than 20"),
        (24, "cluster_means", ""),
        (24, {"method": "cluster_robust", "variance": "CR1"}, "too small with so few clusters (24, fewer than 50)"),
        (24, "randomization_inference", "exact for an effect that is the same everywhere"),
    ],
)
def test_a_reader_is_told_what_few_clusters_carry(world, clusters, estimator, words) -> None:
    (m,) = world.readout(log(clusters), {**RUN, "estimator": estimator}).metrics
    assert words in m.note if words else m.note == ""


@pytest.mark.parametrize(
    ("estimator", "told"),
    [
        ({"method": "cluster_means", "weights": "rows"}, True),
        ("cluster_robust", True),
        ("cluster_means", False),
        ({"method": "cluster_robust", "variance": "CR3"}, False),
    ],
)
def test_a_reader_is_told_where_few_large_clusters_hold_most_rows(world, estimator, told) -> None:
    frame = log(40)
    large = frame.filter(pl.col("region").is_in(["r000", "r001", "r002", "r003"]))
    (m,) = world.readout(pl.concat([frame, *[large] * 12]), {**RUN, "estimator": estimator}).metrics
    assert ("of unlike size count as about" in m.note) == told


def test_too_few_clusters_to_draw_an_interval(world) -> None:
    (m,) = world.readout(log(6), {**RUN, "estimator": "randomization_inference"}).metrics
    assert m.estimate is None
    assert m.note == (
        "not estimated: too few clusters for an interval at level 0.95: "
        "the smallest p-value that resampling can reach is 0.1"
    )


def test_clusters_that_all_carry_both_arms_were_not_randomized(world) -> None:
    frame = log().with_columns(arm=pl.when(pl.col("user") % 2 == 0).then(pl.lit("old")).otherwise(pl.lit("new")))
    world.write(frame, RUN)
    found = world.run()
    assert found.code == 3
    assert "each of the 24 clusters carries rows of several arms, so clusters are not what was randomized" in found.err
    assert "user_rct where units keep an arm" in found.err


def test_the_starter_runs_as_it_is(world) -> None:
    assert world.command("init", "--design", "cluster_rct", "--out", world.folder / "spec.yaml").code == 0
    found = world.run("--format", "json")
    assert found.code == 0
    assert found.json["design"]["n_units"] == {"current": 4, "premium": 4}
    assert "fewer than 20" in found.json["metrics"][0]["note"]


def test_sums_of_its_clusters_go_the_same_way_as_a_metrics_own(clustered) -> None:
    evidence = clustered(log())
    table = evidence.tables["clusters"].rename({"m|num": "num", "m|den": "den"}).with_columns(rows=pl.col("den"))
    own = evidence.sample.belonging(table)
    assert own["unit"].n_unique() == len(table) == 24
    found, wanted = evidence.sample.effect_of(own, 1, 0.05), evidence.effect("m", 1)
    assert (found.estimate, found.std_error, found.df) == (wanted.estimate, wanted.std_error, wanted.df)
