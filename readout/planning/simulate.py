"""The planned experiment run on resampled past logs: what power it achieves, and how often it finds nothing's effect.

Whole past days are drawn anew for every day of the plan, weekdays for weekdays and weekends for weekends, so that what
belongs together in a day stays together; arms are drawn by the very mechanism; and the effect is estimated by the very
estimator. Under an additive effect an estimate moves by just that effect and its error stays, so one run serves both
questions. Clusters keep a stretch of past days as it was: drawn days would add noise to what clusters differ by anyway.
Source of the bootstrap: Künsch (1989), *The jackknife and the bootstrap for general stationary observations*.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta

import numpy as np

from estimators.block_regression import block_regression
from estimators.cluster_means import Clusters, cluster_means
from estimators.difference_in_means import difference_in_means
from estimators.estimate import Estimate
from estimators.inference import EstimationError, critical_value
from estimators.moments import Moments
from readout.mechanisms import Mechanism, draws
from readout.planning.ask import Ask
from readout.planning.designs import Candidate, Sight
from readout.planning.errors import PastErrors, cluster_values, matched
from readout.planning.series import Codes, Floats, Series

MOST_UNITS = 50_000
BUDGET = 1e10  # cells x parameters squared over all runs
FEWEST_RUNS = 40
RARE = 0.05  # of a difference by chance, over the sides and effects that are looked at
SAME_WEEKDAY = 28  # days of log from which a Monday is drawn for a Monday


@dataclass(frozen=True, slots=True)
class Simulation:
    """What simulated experiments found.

    Attributes:
        stated: The power that the plan states.
        achieved: Share that found the true effect; None where no effect was asked for.
        smallest: Share that found the smallest effect that the plan sees, which is to have the wanted power.
        false_positives: Share that found an effect where there was none.
        runs: Simulated experiments that gave an estimate.
        failed: Those that gave none.
        margin: Half of the Monte Carlo interval (95 %) of ``achieved`` around ``stated``, by the normal approximation.
        false_margin: The same of ``false_positives`` around alpha.
        note: What was simulated, where that is not the whole plan; or why nothing was.
    """

    design: str
    metric: str
    stated: float | None
    achieved: float | None
    false_positives: float | None
    runs: int
    failed: int
    margin: float | None
    false_margin: float | None
    note: str = ""
    alpha: float = 0.05
    power: float = 0.8
    smallest: float | None = None

    @property
    def differs(self) -> bool:
        """Whether the achieved power is off the stated one by more than chance makes it, at either effect."""
        pairs = [(self.achieved, self.stated), (self.smallest, self.power)]
        seen = [_by_chance(a, b, self.runs) for a, b in pairs if a is not None and b is not None]
        return any(2 * len(seen) * chance < RARE for chance in seen)

    @property
    def too_often(self) -> bool:
        """Whether nothing's effect is found more often than alpha and chance explain."""
        found = self.false_positives
        return found is not None and found > self.alpha and 2 * _by_chance(found, self.alpha, self.runs) < RARE


def _by_chance(share: float, expected: float, runs: int) -> float:
    """Exact binomial probability of a share at least as far from the expected one, on its side."""
    from scipy.special import bdtr, bdtrc

    found = round(share * runs)
    # A power that is one but for rounding would make a single miss impossible.
    p = min(max(expected, 1e-12), 1.0 - 1.0 / (10 * runs))
    return float(bdtr(found, runs, p) if share <= expected else bdtrc(found - 1, runs, p) if found else 1.0)


def simulate(errors: PastErrors, candidate: Candidate, seen: Sight, ask: Ask, runs: int, seed: int) -> Simulation:
    """Runs the plan of one design for one metric; a design of single rows is not simulated."""
    rng = np.random.default_rng([2, seed])
    name = seen.target.metric
    try:
        if candidate.kind == "switchback":
            runs, note = _affordable(errors, candidate, name, ask, runs)
            one, scale = _switchback(errors, candidate, name, ask, runs, rng), 1.0
        elif candidate.kind == "cluster_rct":
            one, note, scale = _clusters(errors, candidate, name, ask, rng), "", 1.0
        elif candidate.kind == "user_rct" and candidate.unit == "unit":
            one, scale, note = _units(errors, name, ask, rng, seen)
        else:
            raise EstimationError("designs of single requests are not simulated: it would take their rows")
    except EstimationError as error:
        return Simulation(candidate.label, name, seen.power, None, None, 0, 0, None, None, str(error))
    effect = None if seen.target.size is None else seen.target.size * scale
    found: list[bool] = []
    small: list[bool] = []
    false: list[bool] = []
    smallest = None if seen.detectable is None else seen.detectable * scale
    failed = 0
    for run in range(runs):
        try:
            estimate = one(run)
        except EstimationError:
            failed += 1
            continue
        beyond = critical_value(ask.alpha, estimate.df) * estimate.std_error
        false.append(abs(estimate.estimate) > beyond)
        if effect is not None:
            found.append(abs(estimate.estimate + effect) > beyond)
        if smallest is not None:
            small.append(abs(estimate.estimate + smallest) > beyond)
    if not false:
        return Simulation(
            candidate.label, name, seen.power, None, None, 0, failed, None, None, "no run gave an estimate"
        )
    n = len(false)
    stated = seen.power
    return Simulation(
        candidate.label,
        name,
        stated,
        float(np.mean(found)) if found else None,
        float(np.mean(false)),
        n,
        failed,
        None if stated is None else max(1.96 * math.sqrt(stated * (1.0 - stated) / n), 1.0 / n),
        1.96 * math.sqrt(ask.alpha * (1.0 - ask.alpha) / n),
        note,
        ask.alpha,
        ask.power,
        float(np.mean(small)) if small else None,
    )


Run = Callable[[int], Estimate]


def _affordable(errors: PastErrors, candidate: Candidate, name: str, ask: Ask, runs: int) -> tuple[int, str]:
    """Fewer runs where a regression is large, so that a plan takes seconds."""
    assert candidate.block is not None
    clusters = len(errors.series(name).clusters)
    cells = clusters * ask.days * 86_400 / candidate.block.total_seconds()
    cost = cells * (clusters + 32) ** 2
    most = max(FEWEST_RUNS, int(BUDGET / cost))
    return (runs, "") if runs <= most else (most, f"{most} runs, not {runs}: the regression is large")


def _switchback(
    errors: PastErrors, candidate: Candidate, name: str, ask: Ask, runs: int, rng: np.random.Generator
) -> Run:
    """Past days laid over the planned calendar, blocks drawn by the plan's mechanism."""
    assert candidate.block is not None
    past = errors.series(name)
    days = ask.whole_days
    start_day = (ask.start.timestamp() // 86_400) * past.per_day
    frame = replace(
        past, num=np.zeros((len(past.clusters), days * past.per_day)), den=np.zeros((1, days * past.per_day)),
        first=int(start_day),
    )  # fmt: skip
    shape = replace(frame, den=frame.num).cells(candidate.block, candidate.washout, ask.offset)
    starts = _starts(frame, candidate.block, ask.offset, len(shape.num) // len(past.clusters))
    inside = np.tile(starts < np.datetime64(ask.end.replace(tzinfo=None), "us"), len(past.clusters))
    how = Mechanism(ask.mechanism, ask.split, together=candidate.together)
    every = draws(how, np.tile(starts, len(past.clusters)), shape.cluster, max(runs, 1), rng)
    arms = (0, int(np.argmin([*ask.split.values()][1:])) + 1)
    chosen = _day_draws(past, ask, runs, rng)
    by_day = [x.reshape(len(past.clusters), past.days, past.per_day) for x in (past.num, past.den)]

    def run(i: int) -> Estimate:
        num, den = (x[:, chosen[i]].reshape(len(past.clusters), -1) for x in by_day)
        cells = replace(frame, num=num, den=den).cells(candidate.block or timedelta(0), candidate.washout, ask.offset)
        keep = np.isin(every[i], arms) & (cells.den > 0.0) & inside
        drawn = replace(cells, arm=(every[i] == arms[1]).astype(np.intp)).take(keep)
        return block_regression(
            drawn,
            alpha=ask.alpha,
            weights=ask.block_weights,
            clustered_by="block" if candidate.together else "cell",
        )

    return run


def _starts(frame: Series, block: timedelta, offset: timedelta, n: int) -> np.ndarray:
    size = block // timedelta(microseconds=1)
    shift = offset // timedelta(microseconds=1)
    first = frame.first * frame.step
    begin = first + (shift - first) % size
    return (begin + size * np.arange(n)).astype("datetime64[us]")


def _day_draws(past: Series, ask: Ask, runs: int, rng: np.random.Generator) -> Codes:
    """``(runs, days)`` past days for every day of the plan, of its kind in the week where the log has one."""
    first = past.first // past.per_day
    have = (np.arange(past.days) + first + 3) % 7
    want = (np.arange(ask.whole_days) + int(ask.start.timestamp() // 86_400) + 3) % 7
    out = np.empty((runs, len(want)), np.intp)
    for i, day in enumerate(want):
        same = have == day if past.days >= SAME_WEEKDAY else (have >= 5) == (day >= 5)
        pool = np.flatnonzero(same) if same.any() else np.arange(past.days)
        out[:, i] = rng.choice(pool, runs)
    return out


def _clusters(errors: PastErrors, candidate: Candidate, name: str, ask: Ask, rng: np.random.Generator) -> Run:
    """A stretch of past days by cluster; arms in shares, or by a coin in pairs matched on the log's first half."""
    past = errors.series(name)
    pair: Codes | None = None
    if candidate.pairs:
        half = past.days // 2
        pair = matched(cluster_values(past.window(0, half)))
        past = past.window(half, past.days - half)
    n = len(past.clusters)
    by_day = [x.reshape(n, past.days, past.per_day).sum(axis=2) for x in (past.num, past.den)]
    length = min(ask.whole_days, past.days)
    control, treatment = (round(share * n) for share in ask.shares)

    def run(_: int) -> Estimate:
        first = int(rng.integers(past.days - length + 1))
        num, den = (x[:, first : first + length].sum(axis=1) for x in by_day)
        if pair is not None:
            keep = pair >= 0
            arm = np.zeros(n, np.intp)
            for code in range(int(pair.max()) + 1):
                arm[rng.permutation(np.flatnonzero(pair == code))[0]] = 1
            whole = Clusters(num[keep], den[keep], arm[keep], pairs=pair[keep])
        else:
            order = rng.permutation(n)[: control + treatment]
            arm = (np.arange(len(order)) >= control).astype(np.intp)
            whole = Clusters(num[order], den[order], arm)
        return cluster_means(whole, alpha=ask.alpha, weights=ask.cluster_weights)

    return run


def _units(errors: PastErrors, name: str, ask: Ask, rng: np.random.Generator, seen: Sight) -> tuple[Run, float, str]:
    """Past units of the planned length drawn with replacement, a coin for each."""
    units = errors.units(name)
    num, den = units.window(min(ask.whole_days, units.days) if units.days else 0)
    assert seen.n_control is not None
    assert seen.n_treatment is not None
    wanted = seen.n_control + seen.n_treatment
    n = int(min(wanted, MOST_UNITS))
    scale = math.sqrt(wanted / n)
    note = f"{n:,} units stand for {wanted:,.0f}, the effect scaled with the error" if scale > 1.01 else ""
    if units.days and units.days < ask.days:
        note = (f"{note}; " if note else "") + f"units as seen in {units.days} days, not {ask.days:g}"
    share = ask.shares[1] / sum(ask.shares)

    def run(_: int) -> Estimate:
        at = rng.integers(0, len(num), n)
        arm = rng.random(n) < share
        control, treatment = (_moments(num[at[side]], den[at[side]], units.per_unit) for side in (~arm, arm))
        return difference_in_means(control, treatment, alpha=ask.alpha)

    return run, scale, note


def _moments(num: Floats, den: Floats, per_unit: bool) -> Moments:
    return Moments.from_arrays(num, None if per_unit else den)
