"""Who they are whom an instrument treats: by hand on public data, against stacked moments, in simulation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from estimators import Compliers, EstimationError, compliers
from tests.estimators.iv_cases import case, table


def test_without_covariates_the_share_is_the_first_stage_and_the_means_are_those_of_the_groups() -> None:
    data = table("card")
    d, z, x = (data[c].to_numpy(float) for c in ("college", "nearc4", "exper"))
    found = compliers(d, z, x)
    always, never = d[z == 0].mean(), 1.0 - d[z == 1].mean()
    assert found.share == pytest.approx(d[z == 1].mean() - always, rel=1e-12)
    assert (found.always, found.never) == pytest.approx((always, never), rel=1e-12)
    var = sum(d[z == v].var() / (z == v).sum() for v in (0, 1))
    assert found.std_error == pytest.approx(np.sqrt(var * len(d) / (len(d) - 1)), rel=1e-12)
    # Everybody less those treated though far, less those not treated though near.
    by_hand = (x.mean() - (d * x)[z == 0].mean() - ((1 - d) * x)[z == 1].mean()) / found.share
    assert found.profile[0].compliers == pytest.approx(by_hand, rel=1e-9)
    assert found.profile[0].everybody == pytest.approx(x.mean(), rel=1e-12)
    assert found.profile[0].difference == pytest.approx(by_hand - x.mean(), rel=1e-9)


def stacked(name: str, by: str | None) -> tuple[np.ndarray, np.ndarray]:
    """Share, means and differences with adjustment by stacked moment conditions, and their sandwich errors.

    The derivative of the moments is numeric; the logit model is statsmodels'.
    """
    from statsmodels.api import Logit

    given, data = case(name), table(name.split(",")[0])
    assert given.x is not None
    d, z, n = given.d, given.z[:, 0], len(given.d)
    facts = (given.x - given.x.mean(axis=0)) / given.x.std(axis=0)
    design = np.column_stack([np.ones(n), facts])
    p = design.shape[1]

    def moments(theta: np.ndarray) -> np.ndarray:
        coef, share, means, everybody = theta[:p], theta[p], theta[p + 1 : 2 * p], theta[2 * p :]
        e = 1.0 / (1.0 + np.exp(-design @ coef))
        kappa = 1.0 - d * (1.0 - z) / (1.0 - e) - (1.0 - d) * z / e
        parts = [
            design * (z - e)[:, None],
            (kappa - share)[:, None],
            kappa[:, None] * (facts - means),
            facts - everybody,
        ]
        return np.column_stack(parts)

    coef = Logit(z, design).fit(disp=0, tol=1e-14).params
    e = 1.0 / (1.0 + np.exp(-design @ coef))
    kappa = 1.0 - d * (1.0 - z) / (1.0 - e) - (1.0 - d) * z / e
    theta = np.concatenate([coef, [kappa.mean()], kappa @ facts / kappa.sum(), facts.mean(axis=0)])
    step = 1e-5
    slopes = [(moments(theta + h) - moments(theta - h)).mean(axis=0) / (2 * step) for h in step * np.eye(len(theta))]
    influence = moments(theta) @ np.linalg.inv(np.column_stack(slopes)).T / n
    groups = np.arange(n) if by is None else np.unique(data[by], return_inverse=True)[1]
    sums = np.zeros((groups.max() + 1, len(theta)))
    np.add.at(sums, groups, influence)
    wanted = np.zeros((2 * p - 1, len(theta)))
    wanted[:p, p : 2 * p] = np.eye(p)
    wanted[p:, p + 1 : 2 * p] = np.eye(p - 1)
    wanted[p:, 2 * p :] = -np.eye(p - 1)
    sums = sums @ wanted.T
    return wanted @ theta, np.sqrt((sums**2).sum(axis=0) * len(sums) / (len(sums) - 1))


@pytest.mark.parametrize(("name", "by"), [("pension", None), ("pension", "age"), ("card, adjusted", "region")])
def test_with_covariates_they_are_those_of_stacked_moments(name: str, by: str | None) -> None:
    given = case(name)
    assert given.x is not None
    facts = (given.x - given.x.mean(axis=0)) / given.x.std(axis=0)
    clusters = None if by is None else table(name.split(",")[0])[by].to_numpy()
    found = compliers(given.d, given.z[:, 0], facts, adjust=given.x, clusters=clusters)
    values, errors = stacked(name, by)
    profile = found.profile
    mine = [found.share, *(t.compliers for t in profile), *(t.difference for t in profile)]
    mine_errors = [found.std_error, *(t.std_error for t in profile), *(t.difference_std_error for t in profile)]
    assert mine == pytest.approx(values, rel=1e-9, abs=1e-9)
    assert mine_errors == pytest.approx(errors, rel=1e-7)  # the oracle's derivative is numeric


def world(seed: int, n: int = 500, adjusted: bool = False) -> tuple[dict[str, Any], np.ndarray]:
    """Those with a large first fact are moved more often; the instrument may depend on the second."""
    rng = np.random.default_rng(seed)
    facts = np.column_stack([rng.random(n) < 0.5, rng.normal(size=n)]).astype(float)
    p = 1.0 / (1.0 + np.exp(-facts[:, 1])) if adjusted else 0.5
    z = (rng.random(n) < p).astype(float)
    kind = rng.random(n)
    moved = kind < 0.2 + 0.4 * facts[:, 0]
    d = np.where(moved, z, (kind > 0.9).astype(float))
    return {"treatment": d, "instrument": z, "profile": facts}, np.array([0.4, 0.75, 0.0])


@pytest.mark.parametrize("adjusted", [False, True])
def test_intervals_of_the_share_and_of_the_profile_cover(adjusted: bool) -> None:
    hits, gaps, n = np.zeros(3), np.zeros(2), 200
    for seed in range(n):
        data, truth = world(seed, adjusted=adjusted)
        found = compliers(**data, adjust=data["profile"] if adjusted else None)
        values = np.array([found.share, *(t.compliers for t in found.profile)])
        errors = np.array([found.std_error, *(t.std_error for t in found.profile)])
        hits += np.abs(values - truth) <= 1.96 * errors
        gaps += [t.p_value is not None and t.p_value < 0.05 for t in found.profile]
    slack = 3.3 * np.sqrt(0.95 * 0.05 / n)
    assert hits / n == pytest.approx([0.95] * 3, abs=slack)
    assert gaps[0] / n > 0.95
    assert gaps[1] / n == pytest.approx(0.05, abs=slack)


def test_an_instrument_the_other_way_round_has_the_same_compliers() -> None:
    data, _ = world(0)
    one, two = (compliers(data["treatment"], z, data["profile"]) for z in (data["instrument"], 1 - data["instrument"]))
    assert (two.reversed, one.reversed) == (True, False)
    assert two.share == pytest.approx(one.share, rel=1e-12)
    assert [t.compliers for t in two.profile] == pytest.approx([t.compliers for t in one.profile], rel=1e-9)
    assert (two.always, two.never) == pytest.approx((one.always, one.never), rel=1e-12)


def test_weights_count_rows_several_times() -> None:
    data, _ = world(5)
    times = np.random.default_rng(0).integers(1, 4, 500)
    one = compliers(**data, adjust=data["profile"], weights=times)
    rows = np.repeat(np.arange(500), times)
    two = compliers(**{k: v[rows] for k, v in data.items()}, adjust=data["profile"][rows], clusters=rows)
    assert summary(one) == pytest.approx(summary(two), rel=1e-9)


def summary(found: Compliers) -> list[float]:
    return [found.share, found.std_error, *(v for t in found.profile for v in (t.compliers, t.difference_std_error))]


def test_a_fact_that_does_not_vary_has_no_p_value() -> None:
    data, _ = world(0)
    trait = compliers(data["treatment"], data["instrument"], np.full(500, 0.1)).profile[0]
    assert (trait.difference, trait.std_error, trait.p_value) == (0.0, 0.0, None)
    assert trait.compliers == pytest.approx(0.1)


def test_what_cannot_be_read_says_why() -> None:
    data, _ = world(0)
    d, z, x = data["treatment"], data["instrument"], data["profile"]
    cases: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
        ("0 and 1", (2.0 * d, z), {}),
        ("0 and 1", (d, np.ones(500)), {}),
        ("0 and 1", (np.zeros(500), z), {}),
        ("0 and 1", (np.empty(0), np.empty(0)), {}),
        ("one row a unit", (d, z, x[:-1]), {}),
        ("a row a unit", (d, z[:-1]), {}),
        ("finite", (d, z, np.full(500, np.nan)), {}),
        ("positive", (d, z), {"weights": np.zeros(500)}),
        ("two of them", (d, z), {"clusters": np.zeros(500)}),
        ("without doubt", (d, z), {"adjust": z}),
        ("without doubt", (d, z), {"adjust": 3.0 * x[:, 1] + 100.0 * z}),
        ("does not move", (np.tile([0.0, 1.0], 250), np.repeat([0.0, 1.0], 250)), {}),
    ]
    for message, arrays, options in cases:
        with pytest.raises(EstimationError, match=message):
            compliers(*arrays, **options)
