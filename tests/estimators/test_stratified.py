"""Differences within strata against saturated least squares, leaving units out one by one, and simulated coverage."""

from __future__ import annotations

import numpy as np
import pytest

from estimators import Moments, difference_in_means, leave_one_out_stratified, stratified
from estimators.inference import EstimationError
from estimators.stratified import StratifiedArm

LABELS = np.array(["a", "b", "c"])


def units(seed: int, n: int = 260, loc: float = 20.0) -> tuple[np.ndarray, ...]:
    """Outcome, denominator, arm and stratum; strata differ in level, effect, spread and share of treated."""
    rng = np.random.default_rng(seed)
    stratum = rng.choice(3, n, p=[0.5, 0.3, 0.2])
    arm = (rng.random(n) < np.array([0.5, 0.3, 0.7])[stratum]).astype(int)
    y = loc + 5.0 * stratum + (0.5 + stratum) * arm + (1.0 + stratum) * rng.normal(size=n)
    den = rng.integers(1, 9, n).astype(float)
    return y, den, arm, LABELS[stratum]


def arms(y: np.ndarray, den: np.ndarray | None, arm: np.ndarray, stratum: np.ndarray) -> list[StratifiedArm]:
    return [StratifiedArm(y[arm == k], None if den is None else den[arm == k], stratum[arm == k]) for k in (0, 1)]


def saturated(y: np.ndarray, arm: np.ndarray, stratum: np.ndarray) -> tuple[float, float]:
    """Least squares on every stratum's arms, HC2, combined at the strata's shares."""
    import statsmodels.api as sm

    cells = [((stratum == s) & (arm == k)).astype(float) for s in LABELS for k in (0, 1)]
    fit = sm.OLS(y, np.column_stack(cells)).fit(cov_type="HC2")
    share = np.array([(stratum == s).mean() for s in LABELS])
    weights = np.ravel(np.column_stack([-share, share]))
    return float(weights @ fit.params), float(np.sqrt(weights @ fit.cov_params() @ weights))


def test_it_is_saturated_least_squares_with_hc2() -> None:
    y, _, arm, stratum = units(1)
    found = stratified(*(side.moments() for side in arms(y, None, arm, stratum)))
    estimate, error = saturated(y, arm, stratum)
    assert found.estimate == pytest.approx(estimate, rel=1e-9)
    assert found.std_error == pytest.approx(error, rel=1e-9)
    parts, df = [], []
    for s in LABELS:
        for k in (0, 1):
            x = y[(stratum == s) & (arm == k)]
            parts.append((stratum == s).mean() ** 2 * x.var(ddof=1) / len(x))
            df.append(len(x) - 1)
    assert found.df == pytest.approx(sum(parts) ** 2 / sum(p * p / d for p, d in zip(parts, df, strict=True)), rel=1e-9)
    assert (found.n_control, found.n_treatment) == ((arm == 0).sum(), (arm == 1).sum())


def test_a_ratio_is_linearised_at_the_arms_stratified_value() -> None:
    y, den, arm, stratum = units(2)
    num = y * den
    found = stratified(*(side.moments() for side in arms(num, den, arm, stratum)))
    share = {s: (stratum == s).mean() for s in LABELS}
    values, variance = [], 0.0
    for k in (0, 1):
        cells = {s: (num[(arm == k) & (stratum == s)], den[(arm == k) & (stratum == s)]) for s in LABELS}
        below = sum(share[s] * d.mean() for s, (_, d) in cells.items())
        value = sum(share[s] * x.mean() for s, (x, _) in cells.items()) / below
        values.append(value)
        variance += sum(share[s] ** 2 * (x - value * d).var(ddof=1) / len(x) for s, (x, d) in cells.items()) / below**2
    assert found.estimate == pytest.approx(values[1] - values[0], rel=1e-9)
    assert found.std_error == pytest.approx(np.sqrt(variance), rel=1e-9)
    assert (found.control_value, found.treatment_value) == pytest.approx(values, rel=1e-9)


def test_one_stratum_is_welch_and_the_unadjusted_are_welch_without_strata() -> None:
    for loc in (20.0, 1e9):
        y, den, arm, stratum = units(3, loc=loc)
        for num, below in ((y, None), (y * den, den)):
            sides = [(num[arm == k], None if below is None else below[arm == k]) for k in (0, 1)]
            welch = difference_in_means(*(Moments.from_arrays(*side) for side in sides))
            one = stratified(*({"all": Moments.from_arrays(*side)} for side in sides))
            for name in ("estimate", "std_error", "df", "ci_low", "relative_ci_low", "relative_ci_high"):
                assert getattr(one, name) == pytest.approx(getattr(welch, name), rel=1e-9)
            found = stratified(*(side.moments() for side in arms(num, below, arm, stratum)))
            assert found.diagnostics["unadjusted_estimate"] == pytest.approx(welch.estimate, rel=1e-6)
            assert found.diagnostics["unadjusted_std_error"] == pytest.approx(welch.std_error, rel=1e-6)


@pytest.mark.parametrize("ratio", [False, True])
def test_leaving_one_out_finds_the_unit_that_moves_it_most(ratio: bool) -> None:
    y, den, arm, stratum = units(4, n=60)
    sides = arms(y * den if ratio else y, den if ratio else None, arm, stratum)
    full = stratified(*(side.moments() for side in sides)).estimate
    moves = {}
    for code, side in enumerate(sides):
        for i in range(len(side.num)):
            rest = np.arange(len(side.num)) != i
            below = None if side.den is None else side.den[rest]
            two = list(sides)
            two[code] = StratifiedArm(side.num[rest], below, side.stratum[rest])
            moves[code, i] = abs(stratified(*(one.moments() for one in two)).estimate - full)
    found = leave_one_out_stratified(*sides)
    assert found is not None
    assert found.diagnostics["left_out"] == dict(zip(("arm", "index"), max(moves, key=moves.__getitem__), strict=True))
    assert abs(found.estimate - full) == pytest.approx(max(moves.values()), rel=1e-9)


def test_a_thin_stratum_is_named() -> None:
    y, _, arm, stratum = units(5)
    keep = ~((stratum == "c") & (arm == 1))
    sides = arms(y[keep], None, arm[keep], stratum[keep])
    with pytest.raises(EstimationError, match="'c' has none of treatment; join small strata"):
        stratified(*(side.moments() for side in sides))
    two = np.array(["x", "x", "y", "y"])
    even = StratifiedArm(np.arange(4.0), None, two)
    assert leave_one_out_stratified(even, even) is None


def test_nothing_varies_within_strata() -> None:
    labels = np.repeat(LABELS, 4)
    flat = StratifiedArm(np.repeat([1.0, 2.0, 3.0], 4), None, labels)
    with pytest.raises(EstimationError, match="does not vary within any stratum"):
        stratified(flat.moments(), flat.moments())


def test_it_covers_where_arms_are_drawn_within_strata() -> None:
    """Half of each stratum is treated: Welch's interval is far too wide, the stratified one is right."""
    rng = np.random.default_rng(6)
    stratum = np.repeat([0, 1, 2], [40, 60, 100])
    draws, covered, wide, lengths = 800, 0, 0, []
    for _ in range(draws):
        arm = np.concatenate([rng.permutation(np.arange(n) % 2) for n in (40, 60, 100)])
        y = 4.0 * stratum + 0.5 * arm + rng.normal(size=200)
        found = stratified(*(side.moments() for side in arms(y, None, arm, LABELS[stratum])))
        welch = difference_in_means(*(Moments.from_arrays(y[arm == k]) for k in (0, 1)))
        covered += found.ci_low <= 0.5 <= found.ci_high
        wide += welch.ci_low <= 0.5 <= welch.ci_high
        lengths.append(found.std_error / welch.std_error)
    assert abs(covered / draws - 0.95) < 0.025
    assert wide == draws
    assert np.mean(lengths) < 0.35
