"""The mean-squared-error-optimal bandwidth of a regression discontinuity, one for both sides (``mserd``).

Calonico, Cattaneo and Titiunik (2014, Econometrica 82), section 2.3 and supplement; with covariates and clusters
Calonico, Cattaneo, Farrell and Titiunik (2019, *Regression discontinuity designs using covariates*), section V. Three
steps, each a plug-in of the one before: a bandwidth for the derivative that the bias of the bias needs, then ``b`` for
the bias, then ``h`` for the effect. The last two carry the authors' regularization, three times the variance of the
estimated derivative, so that a flat function gives no boundless bandwidth. Where a fifth of a side's rows share their
value of the running variable with another, pilot bandwidths take in at least ten distinct values on either side.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from estimators import local_polynomial as lp
from estimators.inference import EstimationError
from estimators.local_polynomial import Fit, Side, Vector

MASS = 0.2  # share of rows with a repeated value that counts as mass points
DISTINCT = 10  # distinct values that a pilot bandwidth then takes in on a side
LEAST = 20  # rows that a bandwidth can be chosen from

_PILOT = {"triangular": 2.576, "uniform": 1.843, "epanechnikov": 2.34}
_NULL = 1e-11  # a covariate whose residual is a smaller share of it than this is explained by the polynomial
_WIDER = 1.0 + math.sqrt(np.finfo(np.float64).eps)  # so that the row at the edge has weight


def optimal_bandwidth(
    below: Side, above: Side, *, takeup: bool = False, order: int = 1, kernel: str = "triangular", variance: str = "nn"
) -> tuple[float, float]:
    """``(h, b)``: for the effect and for its bias, in the running variable's unit.

    Args:
        below, above: The sides, whole.
        takeup: The second column of the values is take-up that varies on both sides.
        order: Of the polynomial for the effect; that for the bias is one higher.

    Raises:
        EstimationError: Fewer than 20 rows, too few distinct values, or no variation to choose by.
    """
    if (n := len(below.x) + len(above.x)) < LEAST:
        raise EstimationError(f"{n} rows are too few to choose a bandwidth by; give one")
    sides = (below, above)
    farthest = max(float(np.abs(side.x).max()) for side in sides)
    distinct = [np.unique(np.abs(side.x)) for side in sides]
    spread = _spread(np.concatenate([side.x for side in sides]))
    pilot = min(_PILOT[kernel] * spread * sum(map(len, distinct)) ** -0.2, farthest)
    least = 0.0
    if any(1.0 - len(d) / len(side.x) >= MASS for d, side in zip(distinct, sides, strict=True)):
        least = max(float(d[min(DISTINCT, len(d)) - 1]) for d in distinct) * _WIDER
    pilot = max(pilot, least)
    q = order + 1
    reach = [float(np.abs(side.x).max()) * _WIDER for side in sides]

    def step(degree: int, derivative: int, reaches: list[float], regularized: bool = True) -> float:
        parts = [
            _parts(side, degree, derivative, pilot, wide, kernel, variance, takeup, regularized)
            for side, wide in zip(sides, reaches, strict=True)
        ]
        (v_b, b_b, r_b), (v_a, b_a, r_a) = parts
        bias = (b_a - b_b) ** 2 + (r_a + r_b)
        if not (math.isfinite(bias) and bias > 0.0 and v_a + v_b > 0.0):
            raise EstimationError(
                "the outcome or the running variable varies too little near the cutoff to choose a bandwidth; give one"
            )
        return float(min(((v_a + v_b) / bias) ** (1.0 / (2 * degree + 3)), farthest))

    first = max(step(q + 1, q + 1, reach, regularized=False), least)
    b = step(q, order + 1, [first, first])
    return step(order, 0, [b, b]), b


def contrast(coef: Vector, gamma: NDArray[np.float64], takeup: bool) -> Vector:
    """``(m,)`` weights of the values whose sum linearizes the effect.

    Args:
        coef: ``(m,)`` the values' coefficients (jumps, or one side's).
        gamma: ``(covariates, 1 + takeup)`` what covariates explain of outcome and take-up.
    """
    if not takeup:
        return np.concatenate(([1.0], -gamma[:, 0]))
    covariates = coef[2:]
    y, t = coef[0] - gamma[:, 0] @ covariates, coef[1] - gamma[:, 1] @ covariates
    if not t != 0.0:
        raise EstimationError("take-up does not jump at the cutoff, so there is no effect of it to be seen")
    return np.concatenate(([1.0 / t, -y / t**2], -gamma[:, 0] / t + gamma[:, 1] * y / t**2))


def explained(fits: Sequence[tuple[Side, Fit]], outcomes: int) -> NDArray[np.float64]:
    """``(covariates, outcomes)`` coefficients of the covariates, the sides' polynomials taken out and pooled.

    A combination of other covariates shares their coefficient (the least-norm solution), and one that the polynomials
    explain gets none; neither changes the effect.

    Raises:
        EstimationError: No more rows with weight than covariates and polynomial terms.
    """
    covariates = fits[0][0].values.shape[1] - outcomes
    if not covariates:
        return np.zeros((0, outcomes))
    rows_used = sum(int((fitted.weights > 0.0).sum()) for _, fitted in fits)
    if rows_used <= covariates + sum(fitted.design.shape[1] for _, fitted in fits):
        raise EstimationError(
            f"{covariates} covariates are too many for the {rows_used} rows near the cutoff; leave some out or widen "
            "the bandwidth"
        )
    roots = [np.sqrt(fitted.weights)[:, None] for _, fitted in fits]
    rows = np.concatenate([root * fitted.raw(side) for root, (side, fitted) in zip(roots, fits, strict=True)])
    whole = np.concatenate([root * side.values[:, outcomes:] for root, (side, _) in zip(roots, fits, strict=True)])
    z = rows[:, outcomes:]
    size = np.linalg.norm(z, axis=0)
    moves = size > _NULL * np.linalg.norm(whole, axis=0)
    scale = np.where(moves, 1.0 / np.where(moves, size, 1.0), 0.0)
    return np.asarray(np.linalg.lstsq(z * scale, rows[:, :outcomes], rcond=1e-10)[0] * scale[:, None])


def _parts(
    side: Side, degree: int, derivative: int, pilot: float, wide: float, kernel: str, variance: str, takeup: bool,
    regularized: bool,
) -> tuple[float, float, float]:  # fmt: skip
    """Variance, bias and regularization of one side's ``derivative`` by a polynomial of ``degree``.

    The variance is seen within ``pilot``; the next derivative, which makes the bias, within ``wide``.
    """
    outcomes = 1 + takeup
    near = side.within(pilot, kernel)
    fitted = lp.fit(near, pilot, degree, kernel)
    gamma = explained([(near, fitted)], outcomes)
    factorial = math.factorial(derivative) / pilot**derivative
    s = contrast(fitted.coef[derivative] * factorial, gamma, takeup)
    loadings = fitted.loadings(derivative)
    noise = lp.residuals(near, fitted, variance) @ s
    v = lp.variance_of(near, loadings, noise, variance, degree + 1)
    constant = float(loadings @ (near.x / pilot) ** (degree + 1))

    far = side.within(wide, kernel)
    higher = degree + 1
    curved = lp.fit(far, wide, higher, kernel)
    unit = wide**-higher
    power = 2 * (degree + 1 - derivative)
    bias = math.sqrt(power) * constant * float(s @ curved.coef[-1]) * unit
    regular = 0.0
    if regularized:
        noise = lp.residuals(far, curved, variance) @ s
        v_far = lp.variance_of(far, curved.loadings(higher), noise, variance, higher + 1) * unit**2
        regular = power * 3.0 * constant**2 * v_far
    return (2 * derivative + 1) * pilot * v, bias, regular


def _spread(x: Vector) -> float:
    """The smaller of the standard deviation and the interquartile range over 1.349 (quantiles average at steps)."""
    low, high = np.quantile(x, [0.25, 0.75], method="averaged_inverted_cdf")
    return min(float(np.std(x, ddof=1)), float(high - low) / 1.349)
