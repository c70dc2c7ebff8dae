"""Effects at several levels of a segment: are they the same, which one differs, and what each is likely to be.

The input is one effect a level with its standard error and degrees of freedom, as the design's own estimator gives
them, and their joint covariance. Levels that share independent units (requests of both kinds from one user, cells of
one block) are correlated; the correlation comes from the units' contributions to each level's effect, the standard
errors stay the estimator's.

Sources: Welch (1951), *On the comparison of several mean values*; Nel and van der Merwe (1986) and Krishnamoorthy and
Yu (2004) for the degrees of freedom of a Wald test whose covariance is a sum of independent estimates; Hotelling (1931)
where it is one estimate; Paule and Mandel (1982) for the variance between levels; Morris (1983), *Parametric empirical
Bayes inference*, and Daniels (1999), *A prior for the variance in hierarchical models*, for priors on shrinkage.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from estimators.inference import EstimationError, t_quantile, two_sided_p

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]

_APART = 1e-12  # a correlation below it is rounding
_NODES = 64  # of the quadrature over shrinkage
_SINGULAR = 1e-10


@dataclass(frozen=True, slots=True, eq=False)
class Levels:
    """Effects of the levels of one segment.

    Attributes:
        effects: ``(k,)`` in the outcome's unit.
        covariance: ``(k, k)``, same unit squared.
        dfs: ``(k,)`` degrees of freedom of each standard error.
    """

    effects: Vector
    covariance: Matrix
    dfs: Vector

    def __post_init__(self) -> None:
        k = len(self.effects)
        if self.covariance.shape != (k, k) or self.dfs.shape != (k,):
            raise ValueError("levels need one effect, one row of covariances and one number of degrees of freedom each")
        parts = (self.effects, self.covariance)
        if not all(np.isfinite(part).all() for part in parts) or not (self.dfs > 0.0).all():
            raise EstimationError("an effect or its error is not finite")

    @property
    def apart(self) -> bool:
        """Whether the levels' errors are independent."""
        root = np.sqrt(np.diag(self.covariance))
        off = self.covariance / np.outer(root, root) - np.eye(len(root))
        return bool((np.abs(off) <= _APART).all())


@dataclass(frozen=True, slots=True)
class Heterogeneity:
    """The test that all levels have one effect.

    Attributes:
        statistic: Wald statistic over its degrees of freedom, held against F.
        df, df_residual: Degrees of freedom of that F; ``inf``: chi-square.
        p_value: Of equal effects.
    """

    statistic: float
    df: float
    df_residual: float
    p_value: float


@dataclass(frozen=True, slots=True, eq=False)
class Pooled:
    """Effects of the levels drawn towards each other.

    Attributes:
        estimates, ci_low, ci_high: ``(k,)``.
        mean: The centre that they are drawn to.
        tau: Standard deviation between the levels' true effects, by Paule and Mandel; 0 where chance explains all.
    """

    estimates: Vector
    ci_low: Vector
    ci_high: Vector
    mean: float
    tau: float


def joint_covariance(std_errors: ArrayLike, contributions: Matrix | None) -> Matrix:
    """Covariance of the levels' effects.

    Args:
        std_errors: ``(k,)`` of the estimator.
        contributions: ``(n, k)`` what each independent unit adds to each level's effect, centred (0 where it has no
            row at the level); None: the levels share no unit.
    """
    errors = np.asarray(std_errors, dtype=np.float64)
    if contributions is None:
        return np.diag(errors**2)
    root = np.sqrt((contributions**2).sum(axis=0))
    if not (root > 0.0).all():
        raise EstimationError("the outcome does not vary at a level")
    scaled = contributions / root
    correlation = scaled.T @ scaled
    np.fill_diagonal(correlation, 1.0)
    return np.asarray(correlation * np.outer(errors, errors), dtype=np.float64)


def rested_dfs(dfs: ArrayLike, contributions: Matrix | None) -> Vector:
    """Degrees of freedom of the levels' errors, fewer where an error rests on a few units: a sum of squares of which
    some make up most is known no better than from these.

    The sum's variance is estimated from the squares themselves and matched to chi-square (Satterthwaite); for normal
    contributions of one size that gives their number. Never more than the estimator's own.

    Args:
        dfs: ``(k,)`` of the estimator.
        contributions: As in :func:`joint_covariance`; None: the estimator's own stand.
    """
    own = np.asarray(dfs, dtype=np.float64)
    if contributions is None:
        return own
    squares = contributions**2
    total = squares.sum(axis=0)
    n = np.maximum((contributions != 0.0).sum(axis=0), 1)
    spread = (squares**2).sum(axis=0) - total**2 / n
    rested = np.divide(2.0 * total**2, spread, out=np.full(len(own), math.inf), where=spread > 0.0)
    return np.asarray(np.minimum(own, rested), dtype=np.float64)


def arm_parts(num: Vector, den: Vector, group: NDArray[np.intp] | None = None, share: Vector | None = None) -> Vector:
    """``(n,)`` what each unit of one arm adds to the arm's value, by the delta method.

    Args:
        num, den: ``(n,)`` sums of the units; the arm's value is the ratio of their sums.
        group: ``(n,)`` stratum codes where the value is an average over strata; None: one stratum.
        share: Weight of each stratum code in that average.
    """
    codes = np.zeros(len(num), dtype=np.intp) if group is None else group
    below = np.bincount(codes, den)
    n = np.bincount(codes).astype(np.float64)
    some = below > 0.0
    ratio = np.divide(np.bincount(codes, num), below, out=np.zeros(len(below)), where=some)
    weight = np.ones(len(below)) if share is None else share[: len(below)]
    small = np.sqrt(np.divide(n, n - 1.0, out=np.zeros(len(n)), where=n > 1.0))
    scale = np.divide(weight * small, below, out=np.zeros(len(below)), where=some)
    return np.asarray((num - ratio[codes] * den) * scale[codes], dtype=np.float64)


def without_covariates(parts: Vector, x: Matrix) -> Vector:
    """Contributions less what the covariates explain of them; a missing value counts as the mean."""
    centred = np.where(np.isfinite(x), x, np.nanmean(np.where(np.isfinite(x), x, np.nan), axis=0, keepdims=True))
    centred = centred - centred.mean(axis=0)
    return np.asarray(parts - centred @ np.linalg.lstsq(centred, parts, rcond=None)[0], dtype=np.float64)


def heterogeneity(levels: Levels) -> Heterogeneity:
    """Wald test that all levels have the same effect.

    The reference is F with ``q = k - 1`` and ``nu - q + 1`` degrees of freedom for ``(nu - q + 1) / (nu q)`` times the
    Wald statistic. Where levels are independent, ``nu`` joins the degrees of freedom of all their errors (Satterthwaite
    for two levels); where they share units, the covariance is one estimate, and ``nu`` is the harmonic mean of its
    parts' by what they weigh in it.

    Raises:
        EstimationError: Fewer than two levels, or too few degrees of freedom or independent units for their number.
    """
    k = len(levels.effects)
    if k < 2:
        raise EstimationError("one level alone has nothing to differ from")
    q = k - 1
    contrasts = np.column_stack([np.eye(q), -np.ones(q)])
    difference, middle = contrasts @ levels.effects, contrasts @ levels.covariance @ contrasts.T
    root = np.sqrt(np.diag(middle))
    if not (root > 0.0).all() or np.linalg.eigvalsh(middle / np.outer(root, root))[0] < _SINGULAR:
        raise EstimationError(f"too few independent units tell {k} levels apart")
    wald = float(difference @ np.linalg.solve(middle, difference))
    nu = _joint_df(levels, contrasts, middle)
    residual = nu - q + 1.0
    if not residual > 0.0:
        raise EstimationError(f"too few independent units for a test over {k} levels")
    if math.isinf(nu):
        return Heterogeneity(wald / q, q, math.inf, _chi_square_tail(wald, q))
    statistic = wald * residual / (nu * q)
    return Heterogeneity(statistic, q, residual, _f_tail(statistic, q, residual))


def against_others(levels: Levels, weights: ArrayLike) -> tuple[Vector, Vector, Vector]:
    """Each level's effect less that of the other levels, weighed among themselves.

    Args:
        levels: At least two.
        weights: ``(k,)`` positive, such as the levels' rows.

    Returns:
        Differences, their standard errors, two-sided p-values, each ``(k,)``.

    Raises:
        EstimationError: One level, or a difference without an error.
    """
    k = len(levels.effects)
    if k < 2:
        raise EstimationError("one level alone has nothing to differ from")
    share = np.tile(np.asarray(weights, dtype=np.float64), (k, 1))
    np.fill_diagonal(share, 0.0)
    contrasts = np.eye(k) - share / share.sum(axis=1, keepdims=True)
    difference = contrasts @ levels.effects
    variance = np.einsum("ij,jk,ik->i", contrasts, levels.covariance, contrasts)
    if not (variance > _SINGULAR * (contrasts**2 @ np.diag(levels.covariance))).all():
        raise EstimationError("a difference between levels shows no spread")
    error = np.sqrt(variance)
    dfs = [_joint_df(levels, c[None, :], np.array([[v]])) for c, v in zip(contrasts, variance, strict=True)]
    p = [two_sided_p(float(d / e), df) for d, e, df in zip(difference, error, dfs, strict=True)]
    return difference, error, np.array(p)


def paule_mandel(effects: ArrayLike, covariance: Matrix) -> float:
    """Variance between the levels' true effects: where the weighted sum of squares about the weighted mean is
    ``k - 1``, with the errors' correlations; 0 where it is less without any."""
    b, v = np.asarray(effects, dtype=np.float64), np.asarray(covariance, dtype=np.float64)
    values, vectors = np.linalg.eigh(v)
    turned, ones = vectors.T @ b, vectors.T @ np.ones(len(b))

    def excess(tau2: float) -> float:
        weight = 1.0 / (np.maximum(values, 0.0) + tau2)
        mean = float((weight * turned) @ ones / ((weight * ones) @ ones))
        return float(weight @ (turned - mean * ones) ** 2) - (len(b) - 1)

    low, high = 0.0, float(np.ptp(b)) ** 2 + float(values.max())
    if len(b) < 2 or excess(_SINGULAR * float(values.max())) <= 0.0:
        return 0.0
    while excess(high) > 0.0:
        high *= 4.0
    for _ in range(200):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if excess(middle) > 0.0 else (low, middle)
        if high - low <= 1e-15 * high:
            break
    return 0.5 * (low + high)


def pooled(levels: Levels, *, alpha: float = 0.05) -> Pooled:
    """The levels' effects under ``effect ~ N(mean, tau^2)``, errors as estimated: each is drawn to the mean by as much
    as chance explains of its distance.

    ``mean`` has a flat prior, and so has the logarithm of ``s^2 + tau^2``, ``s^2`` being the harmonic mean of the
    variances: between no difference and a large one it takes no side, and two levels are enough. Both are integrated
    over, so that intervals count how little is known of ``tau``. They reach Student's quantile at the level's own
    degrees of freedom times the posterior's standard deviation. (The prior under which shrinkage itself is uniform
    covers 86 in 100 where levels are far apart.)

    Raises:
        EstimationError: Fewer than two levels.
    """
    b, v = levels.effects, levels.covariance
    if len(b) < 2:
        raise EstimationError("one level alone is pooled with nothing")
    scale = len(b) / float((1.0 / np.diag(v)).sum())
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    # With shrinkage x^2 the density is smooth down to no shrinkage, and the prior on x is 1 / x.
    x = 0.5 * (nodes + 1.0)
    spread, turn = np.linalg.eigh(v)
    total = np.maximum(spread, 0.0) + (scale * (1.0 - x * x) / (x * x))[:, None]
    inverse = np.einsum("ij,nj,kj->nik", turn, 1.0 / total, turn)
    loads = inverse.sum(axis=2)
    precision = loads.sum(axis=1)
    centre = loads @ b / precision
    rest = b - centre[:, None]
    pulled = np.einsum("nij,nj->ni", inverse, rest)
    logs = -0.5 * (np.log(total).sum(axis=1) + np.log(precision) + (rest * pulled).sum(axis=1))
    density = np.exp(logs - logs.max()) * weights / x
    density = density / density.sum()
    means = b - pulled @ v
    # tau^2 I - tau^4 (V + tau^2 I)^-1 in a form that loses no digits, and the mean's own variance.
    within = np.diag(v) - np.einsum("ij,njk,ki->ni", v, inverse, v) + (loads @ v) ** 2 / precision[:, None]
    estimates = density @ means
    variance = density @ (within + (means - estimates) ** 2)
    half = np.array([t_quantile(1.0 - alpha / 2.0, float(df)) for df in levels.dfs]) * np.sqrt(variance)
    tau = math.sqrt(paule_mandel(b, v))
    return Pooled(estimates, estimates - half, estimates + half, float(density @ centre), tau)


def _joint_df(levels: Levels, contrasts: Matrix, middle: Matrix) -> float:
    """Degrees of freedom of ``contrasts covariance contrasts'`` as a covariance estimate."""
    q = len(contrasts)
    inverse = np.linalg.inv(middle)
    shares = np.einsum("il,ij,jl->l", contrasts, inverse, contrasts) * np.diag(levels.covariance)
    if not levels.apart:
        # One estimate from the units that all levels share. A level of few units takes off as much as it weighs in it.
        lost = float((shares / levels.dfs).sum())
        return float(shares.sum()) / lost if lost > 0.0 else math.inf
    # One independent component a level: its share of the whole has rank one, so that the trace of its square is the
    # square of its trace.
    parts = float((2.0 * shares**2 / levels.dfs).sum())
    return q * (q + 1.0) / parts if parts > 0.0 else math.inf


def _f_tail(statistic: float, df: float, residual: float) -> float:
    from scipy.special import fdtrc

    return float(fdtrc(df, residual, statistic))


def _chi_square_tail(statistic: float, df: float) -> float:
    from scipy.special import chdtrc

    return float(chdtrc(df, statistic))
