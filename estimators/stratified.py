"""Difference in means within strata, averaged over them: post-stratification and stratified randomization.

Estimand: the average treatment effect on the units in the experiment, each stratum at its share of them. Sources:
Imbens and Rubin (2015), *Causal Inference*, ch. 9 (Neyman's variance within strata); Miratrix, Sekhon and Yu (2013),
*Adjusting treatment effect estimates by post-stratification*; Cochran (1977), *Sampling Techniques*, 6.11 (ratios).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from estimators.difference_in_means import relative_effect
from estimators.estimate import Estimate
from estimators.inference import EstimationError, finish, satterthwaite
from estimators.moments import Moments

Vector = NDArray[np.float64]
Strata = Mapping[str, Moments]

# So many strata are named in a message; the rest are counted.
_NAMED = 3


@dataclass(frozen=True, slots=True, eq=False)
class StratifiedArm:
    """One arm's units.

    Attributes:
        num: ``(n,)`` outcome.
        den: ``(n,)`` denominator of a ratio of sums; None: 1 throughout.
        stratum: ``(n,)`` labels, or their positions in ``names``.
        names: Names of the strata; empty: the labels.
    """

    num: Vector
    den: Vector | None
    stratum: NDArray[Any]
    names: tuple[str, ...] = ()

    def moments(self) -> dict[str, Moments]:
        """Moments by stratum."""
        found, code = np.unique(self.stratum, return_inverse=True)
        labels = [self.names[one] for one in found] if self.names else found
        order = np.argsort(code, kind="stable")
        parts = np.split(order, np.cumsum(np.bincount(code))[:-1])
        return {
            str(label): Moments.from_arrays(self.num[part], None if self.den is None else self.den[part])
            for label, part in zip(labels, parts, strict=True)
        }


def stratified(control: Strata, treatment: Strata, *, alpha: float = 0.05) -> Estimate:
    """Treatment's value minus control's, strata weighted by their units in both arms.

    An arm's value is ``sum(w mean_num) / sum(w mean_den)`` with ``w`` the strata's shares of the units. Its variance is
    ``sum(w^2 s^2 / n)``, ``s^2`` that of ``num - value * den`` within a stratum of the arm, over the squared
    denominator (delta method); of a plain mean this is Neyman's. What differs between strata is in no variance.

    Args:
        control, treatment: Moments by stratum at the unit of randomization.
        alpha: Level of the test; intervals are at ``1 - alpha``.

    Returns:
        The estimate in the outcome's unit; Satterthwaite's degrees of freedom over the strata's arms; the relative
        effect on the log ratio, its strata at the same shares. Diagnostics: ``n_strata``; ``unadjusted_estimate`` and
        ``unadjusted_std_error`` without strata; ``std_error_population``, the error for a population that the units
        are a sample of, which adds that of the strata's shares where their effects differ.

    Raises:
        EstimationError: A stratum with fewer than two units in an arm, a denominator that does not sum to a positive
            number, or an outcome that does not vary within any stratum.
    """
    names = sorted(control.keys() | treatment.keys())
    _require_two(names, control, treatment)
    n = np.array([control[name].n + treatment[name].n for name in names], dtype=np.float64)
    share = n / n.sum()
    c, t = (_value([arm[name] for name in names], share) for arm in (control, treatment))
    if math.sqrt(t.variance + c.variance) <= 1e-14 * max(abs(t.value), abs(c.value)):
        raise EstimationError("the outcome does not vary within any stratum, so nothing says how sure the estimate is")
    apart = t.deviations - c.deviations
    spread = float(share @ (apart - share @ apart) ** 2) / float(n.sum())
    whole = [_pooled([arm[name] for name in names]) for arm in (control, treatment)]
    dfs = (t.df, c.df)
    return finish(
        "difference_in_means",
        estimate=t.value - c.value,
        std_error=math.sqrt(t.variance + c.variance),
        df=satterthwaite((t.variance, c.variance), dfs),
        alpha=alpha,
        control_value=c.value,
        treatment_value=t.value,
        n_control=c.n,
        n_treatment=t.n,
        relative=relative_effect(c.value, t.value, c.variance, t.variance, dfs, alpha),
        diagnostics={
            "n_strata": len(names),
            "unadjusted_estimate": whole[1].value - whole[0].value,
            "unadjusted_std_error": math.sqrt(whole[0].value_variance + whole[1].value_variance),
            "std_error_population": math.sqrt(t.variance + c.variance + spread),
        },
    )


def leave_one_out_stratified(
    control: StratifiedArm, treatment: StratifiedArm, *, alpha: float = 0.05
) -> Estimate | None:
    """The stratified difference without the unit whose leaving out moves it most.

    Returns:
        The full estimate without it; ``diagnostics["left_out"]`` holds its ``arm`` (0 control, 1 treatment) and its
        ``index`` in the arm. Units whose stratum would keep fewer than two of the arm are passed over; None where all
        are.

    Raises:
        EstimationError: As :func:`stratified`.
    """
    arms = [control, treatment]
    moves = [_moves(arms[code], arms[1 - code]) for code in (0, 1)]
    if max(m.max() for m in moves) < 0.0:
        return None
    code = int(moves[1].max() > moves[0].max())
    index = int(np.argmax(moves[code]))
    mine = arms[code]
    rest = np.arange(len(mine.num)) != index
    den = None if mine.den is None else mine.den[rest]
    arms[code] = StratifiedArm(mine.num[rest], den, mine.stratum[rest], mine.names)
    estimate = stratified(arms[0].moments(), arms[1].moments(), alpha=alpha)
    return replace(estimate, diagnostics={**estimate.diagnostics, "left_out": {"arm": code, "index": index}})


@dataclass(frozen=True, slots=True)
class _Arm:
    """One arm over its strata; ``deviations`` are each stratum's linearised value less the arm's."""

    n: int
    value: float
    variance: float
    df: float
    deviations: Vector


def _value(strata: list[Moments], share: Vector) -> _Arm:
    num, den = (np.array([getattr(m, f"mean_{part}") for m in strata]) for part in ("num", "den"))
    below = float(share @ den)
    if not below > 0.0:
        raise EstimationError("the denominator does not sum to a positive number in one arm")
    value = float(share @ num) / below
    n = np.array([m.n for m in strata], dtype=np.float64)
    parts = (share / below) ** 2 * np.array([_residual(m, value) for m in strata]) / n
    total = float(parts.sum())
    df = total**2 / float((parts**2 / (n - 1.0)).sum()) if total > 0.0 else float((n - 1.0).sum())
    return _Arm(int(n.sum()), value, total, df, (num - value * den) / below)


def _residual(m: Moments, value: float) -> float:
    """Variance of ``num - value * den`` within a stratum."""
    if m.var_den == 0.0 or m.var_residual is None or not m.mean_den > 0.0:
        return max(0.0, m.var_num - 2.0 * value * m.cov + value * value * m.var_den)
    # About the stratum's own ratio first: there the variance was centred before it was squared.
    own = m.mean_num / m.mean_den
    gap = value - own
    return max(0.0, m.var_residual - 2.0 * gap * (m.cov - own * m.var_den) + gap * gap * m.var_den)


def _pooled(strata: list[Moments]) -> Moments:
    """Moments of an arm's strata together (Chan, Golub and LeVeque 1983)."""
    n = np.array([m.n for m in strata], dtype=np.float64)
    total, rest = float(n.sum()), max(float(n.sum()) - 1.0, 1.0)
    mean = [float(n @ [getattr(m, f"mean_{part}") for m in strata]) / total for part in ("num", "den")]
    gap = np.array([[m.mean_num - mean[0], m.mean_den - mean[1]] for m in strata])
    between = (gap * n[:, None]).T @ gap
    within = [float((n - 1.0) @ [getattr(m, part) for m in strata]) for part in ("var_num", "var_den", "cov")]
    apart = (between[0, 0], between[1, 1], between[0, 1])
    var_num, var_den, cov = ((w + b) / rest for w, b in zip(within, apart, strict=True))
    value = mean[0] / mean[1] if mean[1] > 0.0 else 0.0
    shifted = gap @ np.array([1.0, -value])
    residual = float((n - 1.0) @ [_residual(m, value) for m in strata]) + float(n @ shifted**2)
    return Moments(int(total), mean[0], mean[1], var_num, var_den, cov, residual / rest)


def _moves(mine: StratifiedArm, other: StratifiedArm) -> Vector:
    """How far the difference moves without each unit of ``mine``; -1 where it cannot be left out."""
    names, code = np.unique(np.concatenate([mine.stratum, other.stratum]), return_inverse=True)
    codes = code[: len(mine.num)], code[len(mine.num) :]
    n = np.bincount(code, minlength=len(names)).astype(np.float64)
    sides = []
    for arm, own in zip((mine, other), codes, strict=True):
        den = np.ones(len(arm.num)) if arm.den is None else arm.den
        size = np.bincount(own, minlength=len(names)).astype(np.float64)
        mean_num, mean_den = (np.bincount(own, v, minlength=len(names)) / np.maximum(size, 1.0) for v in (arm.num, den))
        # About the arm's value, so that its weighted numerator is zero and what moves it is seen.
        value = float(n @ mean_num) / float(n @ mean_den)
        sides.append((arm.num - value * den, den, mean_num - value * mean_den, mean_den, size))
    (e, den, mean_e, mean_d, size), (_, _, other_e, other_d, _) = sides
    s = codes[0]
    rest = np.maximum(size[s] - 1.0, 1.0)
    above = (n[s] - 1.0) * (mean_e[s] + (mean_e[s] - e) / rest) - n[s] * mean_e[s]
    below = (n[s] - 1.0) * (mean_d[s] + (mean_d[s] - den) / rest) - n[s] * mean_d[s] + float(n @ mean_d)
    shift = above / np.where(below > 0.0, below, np.inf) + other_e[s] / (float(n @ other_d) - other_d[s])
    return np.asarray(np.where(size[s] >= 3.0, np.abs(shift), -1.0), dtype=np.float64)


def _require_two(names: list[str], control: Strata, treatment: Strata) -> None:
    thin = []
    for name in names:
        for arm, strata in (("control", control), ("treatment", treatment)):
            n = strata[name].n if name in strata else 0
            if n < 2:
                thin.append(f"{name!r} has {n or 'none'} of {arm}")
    if thin:
        more = f" and {len(thin) - _NAMED} more" if len(thin) > _NAMED else ""
        raise EstimationError(
            "a stratum needs two units in each arm for its difference to have an error: "
            + ", ".join(thin[:_NAMED])
            + more
            + "; join small strata into larger ones"
        )
