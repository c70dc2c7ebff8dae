"""Weights from propensities, by estimand, and what they look like.

With propensity ``e`` and treatment ``T`` an estimand weighs people by ``h(e)``: 1 for everybody (``ate``), ``e`` for
the treated (``att``), ``e (1 - e)`` for those who might as well have been in either arm (``overlap``). Treated rows
weigh ``h / e``, controls ``h / (1 - e)``: Li, Morgan and Zaslavsky (2018), *Balancing covariates via propensity score
weighting*, table 1. People themselves are averaged with ``base``: 1, ``T`` and ``(T - e)^2``, whose means given the
covariates are ``h``, and with which small errors of ``e`` do not move the estimand (Hirano, Imbens and Ridder 2003).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from estimators.inference import EstimationError
from estimators.nuisance_design import Codes, Vector
from estimators.nuisances import Nuisances, Split

ESTIMANDS = ("ate", "att", "overlap")
_CERTAIN = 1e-12


@dataclass(frozen=True, slots=True, eq=False)
class Tilt:
    """Weights of all rows; 0 for those that are left out.

    Attributes:
        kept: ``(n,)`` rows with an outcome whose propensity is not trimmed.
        base: ``(n,)`` weights of people.
        arms: Control's and treatment's ``(n,)`` weights.
        slopes: Their derivatives in the propensity.
        trimmed: Share of the rows with an outcome that trimming left out.
    """

    kept: NDArray[np.bool_]
    base: Vector
    arms: tuple[Vector, Vector]
    slopes: tuple[Vector, Vector]
    trimmed: float


def tilt(
    shared: Nuisances, split: Split, estimand: str, trim: float | None, seen: NDArray[np.bool_], checked: bool = True
) -> Tilt:
    """Weights of one split.

    Args:
        estimand: ``ate``, ``att`` or ``overlap``.
        trim: Rows whose propensity lies outside ``[trim, 1 - trim]`` are left out, which narrows the estimand to the
            others; None: none. Propensities are never clipped.
        seen: ``(n,)`` rows that have an outcome.
        checked: Refuse propensities that the weights cannot stand.

    Raises:
        ValueError: An unknown estimand or a ``trim`` outside 0 to 0.5.
        EstimationError: Propensities of 0 or 1, or fewer than two units left in an arm.
    """
    if estimand not in ESTIMANDS:
        raise ValueError(f"estimand must be one of {ESTIMANDS}")
    if trim is not None and not 0.0 <= trim < 0.5:
        raise ValueError("trim must lie between 0 and 0.5")
    e, treated = split.propensity, shared.treated
    kept = seen if trim is None else seen & (e >= trim) & (e <= 1.0 - trim)
    _enough_units(shared, kept)
    if checked:
        _check_overlap(e[kept], estimand, shared.propensity)
    one, zero = (kept & treated).astype(np.float64), (kept & ~treated).astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        base, arms, slopes = _weights(e, kept, one, zero, estimand)
    return Tilt(kept, base, arms, slopes, 1.0 - float(kept.sum()) / float(seen.sum()))


def _weights(
    e: Vector, kept: NDArray[np.bool_], one: Vector, zero: Vector, estimand: str
) -> tuple[Vector, tuple[Vector, Vector], tuple[Vector, Vector]]:
    if estimand == "overlap":
        return (one - e) ** 2 * kept, (zero * e, one * (1.0 - e)), (zero, -one)
    odd = np.divide(zero, 1.0 - e, out=np.zeros(len(e)), where=zero > 0.0)
    if estimand == "att":
        return one, (odd * e, one), (odd / np.where(zero > 0.0, 1.0 - e, 1.0), np.zeros(len(e)))
    even = np.divide(one, e, out=np.zeros(len(e)), where=one > 0.0)
    slopes = odd / np.where(zero > 0.0, 1.0 - e, 1.0), -even / np.where(one > 0.0, e, 1.0)
    return kept.astype(np.float64), (odd, even), slopes


def _check_overlap(e: Vector, estimand: str, model: str) -> None:
    if model == "linear" and (n := int(((e < 0.0) | (e > 1.0)).sum())):
        raise EstimationError(
            f"the linear model puts the probability of treatment of {n} row{'s' * (n != 1)} below 0 or above 1: take "
            "propensity logit, or trim"
        )
    low = {"ate": e < _CERTAIN, "att": e < 0.0, "overlap": e < 0.0}[estimand]
    high = e > 1.0 if estimand == "overlap" else e > 1.0 - _CERTAIN
    if n := int(low.sum() + high.sum()):
        raise EstimationError(
            f"there is no overlap for {n} row{'s' * (n != 1)}: the fitted probability of treatment is 0 or 1, or "
            "beyond. "
            "Trim such rows, take estimand overlap, or leave out what decides the treatment alone"
        )


def _enough_units(shared: Nuisances, kept: NDArray[np.bool_]) -> None:
    for name, n in zip(("control", "treatment"), units_by_arm(shared, kept), strict=True):
        if n < 2:
            raise EstimationError(f"{name} has {n} unit{'s' * (n != 1)} left; an error needs at least two")


def units_by_arm(shared: Nuisances, kept: NDArray[np.bool_]) -> tuple[int, int]:
    """Units with rows in control and in treatment."""
    sides = (kept & ~shared.treated, kept & shared.treated)
    if shared.units is None:
        return int(sides[0].sum()), int(sides[1].sum())
    counts = [int(np.count_nonzero(np.bincount(shared.units[side], minlength=1))) for side in sides]
    return counts[0], counts[1]


def weight_notes(shared: Nuisances, weights: Tilt) -> dict[str, Any]:
    """Effective sample sizes and concentration of the arms' weights.

    Returns:
        ``ess`` ``{control, treatment}``: Kish's ``sum(w)^2 / sum(w^2)`` of rows; with units of several rows
        ``ess_units``, of the units' weights. ``weights`` ``{max_share, top_1pct_share}``: the greater of the arms'
        shares of an arm's weight held by one row, and by its heaviest 1 % of rows. ``trimmed``: the share trimmed.
    """
    notes: dict[str, Any] = {"ess": _by_arm([_kish(w) for w in weights.arms])}
    if shared.units is not None:
        of_units = [unit_sums(shared.units, shared.n_units, w) for w in weights.arms]
        notes["ess_units"] = _by_arm([_kish(w) for w in of_units])
    shares = [_concentration(w[w > 0.0]) for w in weights.arms]
    notes["weights"] = {
        "max_share": max(share[0] for share in shares),
        "top_1pct_share": max(share[1] for share in shares),
    }
    return notes | {"trimmed": weights.trimmed}


def _kish(w: Vector) -> float:
    largest = float(np.abs(w).max())
    scaled = w / largest if largest > 0.0 else w
    square = float(scaled @ scaled)
    return float(scaled.sum()) ** 2 / square if square > 0.0 else 0.0


def _concentration(w: Vector) -> tuple[float, float]:
    if not len(w):
        return 1.0, 1.0
    top = max(1, round(0.01 * len(w)))
    heaviest = np.partition(w, len(w) - top)[len(w) - top :]
    return float(w.max() / w.sum()), float(heaviest.sum() / w.sum())


def _by_arm(values: list[float]) -> dict[str, float]:
    return {"control": values[0], "treatment": values[1]}


def unit_sums(codes: Codes | None, n_units: int, values: Vector) -> Vector:
    """Sums over units of a row's values."""
    return values if codes is None else np.bincount(codes, values, minlength=n_units).astype(np.float64, copy=False)
