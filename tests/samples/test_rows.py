"""Rows as independent observations, against scipy on the rows themselves."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from scipy import stats


def log(n: int = 4000, seed: int = 2) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    arm = rng.integers(0, 2, n)
    return pl.DataFrame(
        {
            "arm": np.array(["old", "new"])[arm],
            "ms": pl.Series(rng.lognormal(4 + 0.05 * arm, 0.6, n)).set(pl.Series(rng.random(n) < 0.1), None),
            "big": 1e9 + rng.normal(0, 1, n),
            "tokens": rng.integers(1, 400, n),
            "cost": rng.gamma(2, 1, n),
            "success": (rng.random(n) < 0.3).astype(int),
        }
    )


def split(frame: pl.DataFrame, column: str) -> list[np.ndarray]:
    return [frame.filter(arm=a)[column].drop_nulls().cast(pl.Float64).to_numpy() for a in ("old", "new")]


@pytest.fixture(params=["request_rct", "user_rct"])
def evidence_of(request, gather):
    """A log without units: requests randomized one by one, or one row a unit."""

    def of(frame, metrics, **more):
        changes = {"logs__columns__time": None, "logs__columns__unit": None, "design__kind": request.param, **more}
        return gather(frame, metrics, **changes)

    return of


def test_means_by_welch(evidence_of, oracle) -> None:
    frame = log()
    evidence = evidence_of(frame, {"m": {"column": "ms"}, "w": {"column": "ms", "where": "tokens > 100"}})
    oracle.agrees(evidence.effect("m", 1), oracle.welch(*split(frame, "ms")))
    oracle.agrees(evidence.effect("w", 1), oracle.welch(*split(frame.filter(pl.col("tokens") > 100), "ms")))
    assert evidence.total("m|null") == frame["ms"].null_count()
    assert evidence.sample.counts() == [frame.filter(arm=a).height for a in ("old", "new")]


def test_ratios_by_the_delta_method(evidence_of, oracle) -> None:
    frame = log()
    evidence = evidence_of(frame, {"m": {"numerator": "cost", "denominator": "success"}})
    arms = list(zip(split(frame, "cost"), split(frame, "success"), strict=True))
    oracle.agrees(evidence.effect("m", 1), oracle.ratio(arms))


def test_second_moments_at_a_mean_of_a_billion(evidence_of) -> None:
    frame = log()
    found = evidence_of(frame, {"m": {"column": "big"}}).effect("m", 1)
    old, new = (x - 1e9 for x in split(frame, "big"))
    assert found.std_error == pytest.approx(np.sqrt(old.var(ddof=1) / len(old) + new.var(ddof=1) / len(new)), rel=1e-9)
    assert found.df == pytest.approx(stats.ttest_ind(new, old, equal_var=False).df, rel=1e-9)


def test_a_ratio_whose_parts_go_together(evidence_of, oracle) -> None:
    """Variances of the parts are 1e12 times the residual's: taken from them it would keep four digits."""
    rng = np.random.default_rng(4)
    frame = log().with_columns(num=1e6 * pl.col("tokens") + pl.Series(rng.normal(0, 1, 4000)))
    found = evidence_of(frame, {"m": {"numerator": "num", "denominator": "tokens"}}).effect("m", 1)
    arms = list(zip(split(frame, "num"), split(frame, "tokens"), strict=True))
    want = oracle.ratio(arms)
    assert found.std_error == pytest.approx(want["std_error"], rel=1e-7)
    assert found.estimate == pytest.approx(want["estimate"], abs=1e-9)


@pytest.mark.parametrize("q", [0.1, 0.5, 0.99])
def test_quantiles(evidence_of, q) -> None:
    frame = log()
    found = evidence_of(frame, {"m": {"column": "ms", "quantile": q}}).effect("m", 1)
    for x, value in zip(split(frame, "ms"), (found.control_value, found.treatment_value), strict=True):
        assert value == pytest.approx(np.quantile(x, q, method="inverted_cdf"), rel=0.01)


def test_whole_number_columns_only(evidence_of, oracle) -> None:
    frame = log().select("arm", "tokens", failed=pl.col("tokens") > 390)
    evidence = evidence_of(frame, {"m": {"column": "tokens"}, "f": {"column": "failed"}})
    oracle.agrees(evidence.effect("m", 1), oracle.welch(*split(frame, "tokens")))
    oracle.agrees(evidence.effect("f", 1), oracle.welch(*split(frame, "failed")))
