"""Logs of a policy that draws its actions, for the checks of an off-policy evaluation: assumptions that hold, or that
a stated amount breaks."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import yaml

from benchmarks.worlds.checks import Rng
from readout import checks, pipeline, spec

AS_OF = datetime(2026, 11, 1, tzinfo=UTC)
CHECKS = ("support", "propensity_calibration", "weight_concentration")


@dataclass(frozen=True)
class Policy:
    """A logging policy, and a target that goes another way in a third of the states.

    Attributes:
        actions, rows: How many.
        units: 0: every row is one.
        sizes: Units send ``even`` numbers of rows, or ``heavy``-tailed ones.
        draws: Once a ``row``, or once a ``unit``, whose rows then all take the same quantile.
        favourite: Share of the requests on which the action of choice, which hangs on the state, is taken anyway; the
            rest is drawn from all alike. None: probabilities are a softmax of the state, by action.
        fine: Numbers among the features, of which cells are made; many cells are then rare.
        closed: Share of requests in a state that the target meets with an action of its own.
        tried: Whether that action is ever tried there.
        certain: There, whether the logging policy leaves nothing to chance.
        version: The log's probabilities are those of a policy that explores so many times as much.
        constant: The log's probabilities are the actions' shares of all requests.
        light: With two actions, the chance of the target's is ``U ** (1 / light)``: its weights have a Pareto tail of
            shape ``1 / (1 + light)``. 0: not so.
        carried: Share of the weight on one unit, by one try that was all but impossible.
    """

    actions: int = 2
    rows: int = 2000
    units: int = 0
    sizes: str = "even"
    draws: str = "row"
    favourite: float | None = 0.0
    fine: int = 0
    closed: float = 0.0
    tried: bool = True
    certain: bool = False
    version: float = 1.0
    constant: bool = False
    light: float = 0.0
    carried: float = 0.0

    def log(self, rng: Rng) -> pl.DataFrame:
        """One log."""
        n, each = self.rows, np.arange(self.rows)
        size = rng.pareto(1.5, self.units) + 1.0 if self.sizes == "heavy" else np.ones(self.units)
        unit = rng.choice(self.units, n, p=size / size.sum()) if self.units else each
        queue, pro, busy = rng.poisson(4.0, n), rng.random(n) < 0.5, rng.random(n) < self.closed
        fine = rng.normal(size=(n, self.fine))
        choice = ((queue >= 4) + 2 * pro + (queue >= 6)) % self.actions
        goes = np.where(queue >= 5, (choice + 1) % self.actions, choice)
        if self.closed:
            goes = np.where(busy, 1, goes)
        p = self._chances(choice, queue, pro, 1.0)
        logged = self._chances(choice, queue, pro, self.version)
        if self.light:
            goes = np.ones(n, dtype=np.intp)
            target = np.maximum(rng.random(n) ** (1.0 / self.light), 1e-9)
            p = logged = np.column_stack([1.0 - target, target])
        if not self.tried:
            for of in (p, logged):
                of[busy] = np.eye(self.actions)[0] if self.certain else of[busy] * (np.arange(self.actions) != 1)
                of /= of.sum(axis=1, keepdims=True)
        quantile = rng.random(max(self.units, n))[unit if self.draws == "unit" else each]
        ran = np.minimum((quantile[:, None] > p.cumsum(axis=1)).sum(axis=1), self.actions - 1)
        chance = logged[each, ran]
        if self.constant:
            chance = np.bincount(ran, minlength=self.actions)[ran] / n
        if self.carried:
            at = int(rng.integers(n))
            ran[at] = goes[at]
            rest = float(((ran == goes) / chance).sum() - 1.0 / chance[at])
            chance[at] = (1.0 - self.carried) / (self.carried * rest)
        columns: dict[str, Any] = {f"x{i}": fine[:, i] for i in range(self.fine)}
        if self.units:
            columns["unit"] = unit
        return pl.DataFrame(columns | {
            "queue": queue, "tier": np.where(pro, "pro", "free"), "busy": busy, "p": chance,
            "ran": np.char.add("a", ran.astype(str)), "goes": np.char.add("a", goes.astype(str)),
            "y": 3.0 - 0.1 * queue + rng.normal(size=n),
        })  # fmt: skip

    def _chances(self, choice: Any, queue: Any, pro: Any, version: float) -> Any:
        """``(n, actions)`` probabilities, where exploration is so many times what it is."""
        codes = np.arange(self.actions)
        if self.favourite is None:
            slope = np.cos(1.0 + codes)
            index = 0.4 * slope * (queue[:, None] - 4.0) + 0.5 * slope[::-1] * pro[:, None]
            raised = np.exp(index / version)
            return raised / raised.sum(axis=1, keepdims=True)
        explore = (1.0 - self.favourite) * version
        return explore / self.actions + (1.0 - explore) * (codes == choice[:, None])

    def spec(self) -> dict[str, Any]:
        """What the log is read by."""
        features = ["tier", "busy", *(f"x{i}" for i in range(self.fine))] if self.closed else [
            "tier", *(f"x{i}" for i in range(self.fine))]  # fmt: skip
        columns = {"intended": "ran", "executed": "ran", "propensity": "p", "state": ["queue"], "features": features}
        if self.units:
            columns["unit"] = "unit"
        return {
            "logs": {"path": "log.parquet", "columns": columns},
            "design": {"kind": "ope", "policy_inputs": ["queue", *features], "target_policy": {"column": "goes"}},
            "estimator": "ips",
            "metrics": {"y": {"column": "y", "role": "primary", "better": "higher"}},
        }


@cache
def answers(policy: Policy, seed: int) -> Mapping[str, str]:
    """The answers of :data:`CHECKS` to one log, read in one pass."""
    asked = {one.__name__: one for one in checks.of("ope")}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        policy.log(np.random.default_rng([seed, 11])).write_parquet(folder / "log.parquet")
        (folder / "spec.yaml").write_text(yaml.safe_dump(policy.spec()), encoding="utf-8")
        evidence = pipeline.gather(spec.load(folder / "spec.yaml"), AS_OF)
        return {check: asked[check](evidence).status for check in CHECKS}


# What holds for all three checks, and whether the short test draws it.
HOLD: tuple[tuple[str, bool, Policy], ...] = (
    ("2 actions drawn alike, 2,000 rows", True, Policy(2, 2000)),
    ("2 actions, one favoured, 200 units of 15 rows", True, Policy(2, 3000, 200, favourite=0.6)),
    ("10 actions drawn alike, 5,000 rows", False, Policy(10, 5000)),
    ("10 actions, one favoured, 500 units of 10 rows", True, Policy(10, 5000, 500, favourite=0.6)),
    ("10 actions, one favoured, cells of 30 rows", True, Policy(10, 3000, favourite=0.5, fine=3)),
    ("80 actions drawn alike, 20,000 rows", True, Policy(80, 20_000)),
    ("5 actions by a softmax of the state, 4,000 rows", True, Policy(5, 4000, favourite=None)),
    ("5 actions, one favoured, 300 units of heavy-tailed size", False, Policy(5, 4000, 300, "heavy", favourite=0.5)),
    ("3 actions, drawn once for each of 400 units", False, Policy(3, 4000, 400, "even", "unit", favourite=0.5)),
    ("2 actions, chances all over (0, 1), a weight's tail of shape 0.33", True, Policy(2, 5000, light=2.0)),
)
FAVOURED = Policy(80, 20_000, 2000, favourite=0.4)
ROUTER = Policy(2, 5000, favourite=0.6)
TEN = Policy(10, 5000, favourite=0.6)
WIDE = Policy(2, 5000, light=1.0)
CLOSED = Policy(5, 4000, favourite=0.5, closed=0.2, tried=False)
# Check, world, whether its assumption holds, whether the short test draws it, and the logs.
WORLDS: tuple[tuple[str, str, bool, bool, Policy], ...] = (
    *(("support", what, True, short, policy) for what, short, policy in HOLD),
    ("support", "an action never tried in 0.3 % of requests", True, True, replace(CLOSED, closed=0.003)),
    ("support", "80 actions, 40 % to a favourite: others tried under 5 times", False, False, FAVOURED),
    ("support", "an action never tried in 20 % of the target's requests", False, True, CLOSED),
    ("support", "the same, where another action was certain", False, False, replace(CLOSED, certain=True)),
    ("support", "the same, spread over cells of 20 rows", False, True, replace(CLOSED, fine=3)),
    ("support", "the same, 5 % of requests", False, False, replace(CLOSED, closed=0.05)),
    *(("propensity_calibration", what, True, short, policy) for what, short, policy in HOLD),
    ("propensity_calibration", "2 actions, a weight's tail of shape 0.5", True, True, WIDE),
    ("propensity_calibration", "80 actions, one favoured, 2,000 units", True, False, FAVOURED),
    ("propensity_calibration", "an action without a chance in 20 % of requests (warns)", False, True, CLOSED),
    *(
        ("propensity_calibration", f"logged by a version that explores {what}", False, short, policy)
        for what, short, policy in (
            ("10 % less, 2 actions, 5,000 rows", False, replace(ROUTER, version=0.9)),
            ("10 % less, 2 actions, 40,000 rows", False, replace(ROUTER, version=0.9, rows=40_000)),
            ("10 % more, 2 actions, 40,000 rows", False, replace(ROUTER, version=1.1, rows=40_000)),
            ("30 % less, 2 actions, 5,000 rows", True, replace(ROUTER, version=0.7)),
            ("30 % more, 2 actions, 5,000 rows", False, replace(ROUTER, version=1.3)),
            ("10 % less, 10 actions, 5,000 rows", False, replace(TEN, version=0.9)),
            ("30 % less, 10 actions, 5,000 rows", True, replace(TEN, version=0.7)),
            ("30 % more, 10 actions, 5,000 rows", False, replace(TEN, version=1.3)),
        )
    ),
    ("propensity_calibration", "the mean logged, 2 actions by state", False, True, replace(ROUTER, constant=True)),
    ("propensity_calibration", "the mean logged, 10 actions by state", False, False, replace(TEN, constant=True)),
    *(("weight_concentration", what, True, short, policy) for what, short, policy in HOLD),
    ("weight_concentration", "80 actions, one favoured, 2,000 units", True, False, FAVOURED),
    ("weight_concentration", "weights with a Pareto tail of shape 0.5, no finite variance", False, False, WIDE),
    ("weight_concentration", "weights with a Pareto tail of shape 0.91", False, True, Policy(2, 5000, light=0.1)),
    ("weight_concentration", "one of 300 units holds 15 % of the weight", False, True,
     Policy(2, 3000, 300, favourite=0.6, carried=0.15)),
    ("weight_concentration", "37 tries of 80 actions", False, True, Policy(80, 3000)),
)  # fmt: skip
