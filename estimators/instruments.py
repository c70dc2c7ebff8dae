"""What estimators of instrumental variables share: outcome, treatment and instruments with the covariates taken out.

By the theorem of Frisch, Waugh and Lovell every regression and every moment condition on the instruments is the same
once covariates are taken out of all three. The instruments are then turned into orthonormal columns, which changes none
of the methods' answers and keeps what they invert well conditioned. Weights multiply every row by their root.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from estimators.inference import EstimationError
from estimators.ols import Matrix, Vector

VARIANCES = ("HC1", "classical", "cluster")
_LENGTHS = "outcome, treatment, instruments, covariates, clusters and weights need one row a unit each"
_NOTHING = 1e-10  # a column with less than this share of its length left is a combination of those before it


@dataclass(frozen=True, slots=True, eq=False)
class Instrumented:
    """Rows times the root of their weight, covariates and the constant taken out.

    Attributes:
        y, d: ``(n,)`` outcome and treatment.
        z: ``(n, k)`` orthonormal columns that span the instruments.
        r: ``(k, k)`` upper triangular: the instruments as given, covariates taken out, are ``z r``.
        q: ``(n, p)`` orthonormal columns that span the constant and the covariates.
        root: ``(n,)`` roots of the weights, whose mean is 1.
        variance: ``HC1``, ``classical`` or ``cluster``.
        codes: ``(n,)`` cluster codes; None: every row is its own.
        n_groups: Independent groups: clusters, or rows.
        dropped_instruments, dropped_covariates: Positions of columns that were combinations of those before them.
    """

    y: Vector
    d: Vector
    z: Matrix
    r: Matrix
    q: Matrix
    root: Vector
    variance: str
    codes: NDArray[np.intp] | None
    n_groups: int
    dropped_instruments: tuple[int, ...]
    dropped_covariates: tuple[int, ...]

    @property
    def k(self) -> int:
        """Instruments that count."""
        return int(self.z.shape[1])

    def without_covariates(self, values: ArrayLike) -> Vector:
        """A further ``(n,)`` column of values, weighed, constant and covariates taken out."""
        return _left(self.root, self.q, np.asarray(values, dtype=np.float64))

    def left_by_instruments(self, column: Vector) -> Vector:
        """``(n,)`` residual of its regression on instruments and covariates, for a column without covariates."""
        return np.asarray(column - self.z @ (self.z.T @ column), dtype=np.float64)

    def summed(self, scores: Matrix) -> Matrix:
        """``(n_groups, m)`` sums within clusters of ``(n, m)`` scores; the scores where rows are independent."""
        if self.codes is None:
            return scores
        columns = [np.bincount(self.codes, weights=s, minlength=self.n_groups) for s in scores.T]
        return np.column_stack(columns)

    def df(self, slopes: int) -> float:
        """Degrees of freedom of a regression with ``slopes`` beside the covariates: ``G - 1`` with clusters, else
        rows less parameters."""
        rows = len(self.y) - self.q.shape[1] - slopes
        return float(rows if self.codes is None else self.n_groups - 1)

    def factor(self, slopes: int) -> float:
        """Small-sample factor of a sum of squared scores: HC1, or with clusters ``G/(G-1) (n-1)/(n-p)`` (CR1)."""
        n = len(self.y)
        rows = n - self.q.shape[1] - slopes
        return float(n / rows if self.codes is None else self.n_groups / (self.n_groups - 1) * (n - 1) / rows)

    def covariance(self, left: Vector, right: Vector) -> Matrix:
        """``(k, k)`` robust covariance of the coefficients of two columns on ``z``, from their residuals."""
        first, second = (self.summed(self.z * e[:, None]) for e in (left, right))
        return np.asarray(first.T @ second * self.factor(self.k), dtype=np.float64)


def prepare(
    outcome: ArrayLike,
    treatment: ArrayLike,
    instruments: ArrayLike,
    *,
    covariates: ArrayLike | None = None,
    clusters: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    variance: str = "HC1",
) -> Instrumented:
    """Checks the arrays and takes the covariates out.

    Args:
        outcome, treatment: ``(n,)`` numbers.
        instruments: ``(n,)`` or ``(n, k)``.
        covariates: ``(n, p)``; a constant is always taken out.
        clusters: ``(n,)`` labels, where ``variance`` is ``cluster`` and only there.
        weights: ``(n,)`` positive; None: all 1.

    Raises:
        ValueError: An unknown ``variance``, or clusters without ``cluster`` and the other way round.
        EstimationError: Arrays of different length, values that are not finite, weights that are not positive, too few
            rows or clusters, or a treatment or instruments that do not vary once covariates are taken out.
    """
    if variance not in VARIANCES:
        raise ValueError(f"variance must be one of {VARIANCES}")
    if (clusters is None) == (variance == "cluster"):
        raise ValueError("clusters go with variance 'cluster', and with no other")
    y, d = np.asarray(outcome, dtype=np.float64), np.asarray(treatment, dtype=np.float64)
    n = len(y)
    z, x = columns(instruments, n), columns(covariates, n)
    codes = None if clusters is None else np.unique(np.asarray(clusters), return_inverse=True)[1].reshape(-1)
    w = np.ones(n) if weights is None else np.asarray(weights, dtype=np.float64)
    if any(a.shape != (n,) for a in (y, d, w)) or (codes is not None and len(codes) != n):
        raise EstimationError(_LENGTHS)
    if not all(np.isfinite(a).all() for a in (y, d, z, x, w)):
        raise EstimationError("outcome, treatment, an instrument or a covariate holds values that are not finite")
    if not (w > 0.0).all():
        raise EstimationError("weights must be positive")
    root = np.sqrt(w / w.mean()) if n else w
    q, dropped_covariates = with_constant(x, root)
    z = root[:, None] * _centred(z, w)
    free, r, dropped_instruments = _independent(z - q @ (q.T @ z), np.linalg.norm(z, axis=0))
    if not free.shape[1]:
        raise EstimationError("no instrument varies once the covariates are taken out")
    _enough(n, q.shape[1], free.shape[1], codes)
    found = Instrumented(
        y=_left(root, q, _centred(y[:, None], w)[:, 0]),
        d=_left(root, q, _centred(d[:, None], w)[:, 0]),
        z=free,
        r=r,
        q=q,
        root=root,
        variance=variance,
        codes=codes,
        n_groups=n if codes is None else int(codes.max()) + 1,
        dropped_instruments=dropped_instruments,
        dropped_covariates=dropped_covariates,
    )
    if np.linalg.norm(found.d) <= _NOTHING * np.linalg.norm(root * (d - np.average(d, weights=w))) or not np.ptp(d):
        raise EstimationError("treatment does not vary once the covariates are taken out")
    return found


def columns(values: ArrayLike | None, n: int) -> Matrix:
    """``(n, m)`` numbers from a column, a matrix or None (no columns).

    Raises:
        EstimationError: Not ``n`` rows.
    """
    if values is None:
        return np.empty((n, 0))
    table = np.asarray(values, dtype=np.float64)
    table = table[:, None] if table.ndim == 1 else table
    if table.ndim != 2 or len(table) != n:
        raise EstimationError(_LENGTHS)
    return table


def with_constant(covariates: Matrix, root: Vector) -> tuple[Matrix, tuple[int, ...]]:
    """Orthonormal columns that span ``root`` times constant and covariates; positions of covariates that add none."""
    q, _, dropped = _independent(np.column_stack([root, root[:, None] * _centred(covariates, root**2)]))
    return q, tuple(i - 1 for i in dropped)


def is_binary(values: Vector) -> bool:
    """Whether the values are 0 and 1, both of them."""
    return bool(((values == 0.0) | (values == 1.0)).all() and values.min() < values.max())


def _enough(n: int, p: int, k: int, codes: NDArray[np.intp] | None) -> None:
    if n <= p + k:
        raise EstimationError(f"{n} rows are too few for {p} covariates with the constant and {k} instruments")
    if codes is not None and (groups := int(codes.max()) + 1) <= k:
        clusters = f"{groups} cluster{'s' * (groups != 1)}"
        raise EstimationError(f"{clusters} and {k} instrument{'s' * (k != 1)}; there must be more clusters than those")


def _centred(table: Matrix, weights: Vector) -> Matrix:
    """Columns less their weighted mean; exactly 0 where what is left is rounding."""
    if not table.size:
        return table
    out = table - np.average(table, axis=0, weights=weights)
    out[:, np.abs(out).max(axis=0) <= 1e-14 * np.abs(table).max(axis=0)] = 0.0
    return np.asarray(out, dtype=np.float64)


def _left(root: Vector, q: Matrix, values: Vector) -> Vector:
    """Residual of weighed values on ``q``, projected twice: the second round takes out the rounding of the first."""
    out = root * values
    for _ in range(2):
        out = out - q @ (q.T @ out)
    return np.asarray(out, dtype=np.float64)


def _independent(table: Matrix, sizes: Vector | None = None) -> tuple[Matrix, Matrix, tuple[int, ...]]:
    """Orthonormal basis and triangle of the columns that are no combination of those before, and the others' positions.

    ``sizes`` are lengths to judge by, of the columns before anything was taken out; None: their own.
    """
    kept = list(range(table.shape[1]))
    sizes = np.linalg.norm(table, axis=0) if sizes is None else sizes
    while True:
        q, r = np.linalg.qr(table[:, kept])
        short = np.flatnonzero(np.abs(np.diag(r)) <= _NOTHING * sizes[kept][: len(r)])
        if not len(short) and len(kept) <= len(table):
            return q, r, tuple(sorted(set(range(table.shape[1])) - set(kept)))
        del kept[int(short[0]) if len(short) else len(table)]
