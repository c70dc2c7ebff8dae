"""Clusters that switch apart and reach each other."""

from __future__ import annotations

import numpy as np
import pytest

START = np.datetime64("2026-10-05T00:00:00", "us")
DESIGN = {"kind": "switchback", "block": "2h"}
COLUMNS = {"time": "at", "cluster": "region"}
METRIC = {"y": {"column": "y", "role": "primary", "better": "lower", "minimum_effect": "5%"}}


def log(
    *, spill: float = 0.0, regions: int = 4, days: int = 14, together: bool = False, noise: float = 3.0, seed: int = 2
):
    """Blocks of two hours; all other regions treated adds ``spill`` to every region's outcome of about 100."""
    rng = np.random.default_rng(seed)
    n = days * 12
    coin = rng.integers(0, 2, (1 if together else regions, n)) * np.ones((regions, 1), dtype=int)
    others = (coin.sum(axis=0) - coin) / max(regions - 1, 1)
    level = rng.normal(0, noise, (regions, n)) + 2 * np.arange(regions)[:, None]
    block, region = np.tile(np.arange(n), regions * 6), np.repeat(np.arange(regions), 6 * n)
    minute = 120 * block + rng.uniform(0, 120, len(block))
    demand = 10 * np.sin(2 * np.pi * (block % 12) / 12)
    y = 100 + demand + level[region, block] - 8 * coin[region, block] + spill * others[region, block]
    return {
        "at": START + (minute * 60e6).astype("timedelta64[us]"),
        "region": region.astype(str),
        "arm": np.array(["a", "b"])[coin[region, block]],
        "y": y + rng.normal(0, 5, len(block)),
    }


def asked(said, columns=COLUMNS, metrics=METRIC, **world):
    return said("untreated_outcomes", log(**world), columns=columns, design=DESIGN, metrics=metrics)


def test_clusters_that_do_not_reach_each_other_pass(said):
    check = asked(said)
    assert check.status == "pass"
    assert check.message.startswith("from no to all other clusters treated, control's y changes by")


def test_what_the_others_are_given_and_control_feels_fails(said):
    check = asked(said, spill=6.0)
    assert (check.status, check.action) == ("fail", "stronger_design")
    (slope,) = check.details["untreated_outcomes"]
    assert slope["estimate"] == pytest.approx(6.0, abs=3.5 * slope["std_error"])


def test_it_fails_at_its_level_and_sees_what_it_says_it_sees(said):
    quiet = [asked(said, seed=seed).status for seed in range(12)]
    loud = [asked(said, seed=seed, spill=6.0).status for seed in range(6)]
    assert quiet.count("fail") <= 1
    assert loud.count("fail") >= 5


def test_noise_that_hides_an_effect_of_the_margins_size_skips(said):
    check = asked(said, noise=40.0)
    assert check.status == "skip"
    assert "varies too little to see an effect of the margin's size on y" in check.message


def test_where_all_switch_together_nobody_is_left_in_control(said):
    assert "no cluster is left untreated beside a treated one" in asked(said, together=True).message
    alone = asked(said, columns={"time": "at"}, regions=1)
    assert alone.status == "skip"


def test_two_clusters_are_enough_and_guardrails_are_watched_too(said):
    metrics = {
        **METRIC,
        "ratio": {"numerator": "y", "denominator": "y2", "role": "guardrail", "better": "lower", "margin": "9%"},
    }
    frame = log(regions=2, spill=8.0)
    frame["y2"] = np.full(len(frame["y"]), 2.0)
    check = said("untreated_outcomes", frame, columns=COLUMNS, design=DESIGN, metrics=metrics)
    one, two = check.details["untreated_outcomes"]
    assert check.status == "fail"
    assert two["estimate"] == pytest.approx(one["estimate"] / 2, rel=1e-9)
