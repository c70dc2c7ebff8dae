"""Off-policy estimators in simulation: unbiased where one of the two models is right, and intervals that cover.

Short versions of ``benchmarks/ope_coverage.py``, whose long one stands in ``docs/off_policy.md``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest

from estimators import Estimate, direct_method, doubly_robust, ips, snips
from tests.estimators.bandits import Bandit, bandit

SEEDS = 200


def read(method: str, logs: Bandit, weight: np.ndarray | None = None) -> Estimate:
    w = logs.weight if weight is None else weight
    given: dict[str, Any] = {"units": logs.units}
    if method in ("ips", "snips"):
        return {"ips": ips, "snips": snips}[method](logs.reward, w, **given)
    given |= {"features": logs.x, "action": logs.action, "target": logs.target}
    if method == "direct_method":
        return direct_method(logs.reward, **given)
    return doubly_robust(logs.reward, w, **given)


def errors(method: str, draw: Callable[[int], Bandit], wrong: bool = False) -> np.ndarray:
    """The target's value less the truth, over seeds; perhaps with propensities that hang on the wrong feature."""
    out = []
    for seed in range(SEEDS // 2):
        logs = draw(seed)
        weight = logs.weight * np.exp(0.5 * logs.x[:, 1] + 0.3) if wrong else None
        out.append(read(method, logs, weight).treatment_value - logs.truth)
    return np.array(out)


def straight(seed: int) -> Bandit:
    return bandit(seed, units=300, rows=1, actions=3)


def bent(seed: int) -> Bandit:
    return bandit(seed, units=300, rows=1, actions=3, bent=1.0)


@cache
def population(actions: int) -> float:
    """The target's value over all requests, from 300,000 of them."""
    return float(np.mean([bandit(seed, units=100_000, rows=1, actions=actions).truth for seed in range(3)]))


def bias(found: np.ndarray) -> float:
    """In standard errors of the mean over seeds."""
    return float(found.mean() / (found.std(ddof=1) / np.sqrt(len(found))))


def test_it_takes_two_wrong_models_to_bias_the_doubly_robust_value() -> None:
    assert abs(bias(errors("doubly_robust", straight))) < 3.0
    assert abs(bias(errors("doubly_robust", bent))) < 3.0
    assert abs(bias(errors("doubly_robust", straight, wrong=True))) < 3.0
    assert abs(bias(errors("doubly_robust", bent, wrong=True))) > 4.0


def test_one_wrong_model_biases_the_method_that_has_no_other() -> None:
    assert abs(bias(errors("direct_method", straight))) < 3.0
    assert abs(bias(errors("direct_method", bent))) > 4.0
    assert abs(bias(errors("ips", bent))) < 3.0
    assert abs(bias(errors("ips", straight, wrong=True))) > 4.0


@pytest.mark.parametrize("method", ["ips", "snips", "direct_method", "doubly_robust"])
@pytest.mark.parametrize("rows", [1, 4])
def test_intervals_cover(method: str, rows: int) -> None:
    """Of 200 at 95 % fewer than 180 have a chance below 0.2 %; rows of a unit share an effect where there are four."""
    held = 0
    for seed in range(SEEDS):
        logs = bandit(1000 + seed, units=250, rows=rows, actions=3)
        value = read(method, logs).diagnostics["values"]["target"]
        held += value["ci_low"] <= population(3) <= value["ci_high"]
    assert 180 <= held <= 199
