"""Errors that allow neighbouring blocks to be alike: Newey-West within clusters, Driscoll-Kraay over common blocks.

Errors clustered by the randomized unit rest on arms drawn independently between blocks. Where the arms themselves run
on (long runs, a rota, blocks shorter than the mechanism's), products of neighbouring blocks must be added:

    V = sum_g S_g^2 + 2 sum_{l=1..L} (1 - l / (L + 1)) sum_g S_g S_{g-l},    times  G / (G - p)

with ``S_g`` the score of a randomized unit, ``G`` their number, ``p`` the parameters, and ``g - l`` the unit ``l``
blocks before on the time grid: of the same cluster where clusters switch apart (Newey and West 1987), all clusters of
the block summed where they switch together (Driscoll and Kraay 1998). A gap in time is no neighbourhood.

Degrees of freedom: Satterthwaite's for that quadratic form under independent equal residuals, as Bell and McCaffrey
(2002) take them for clusters. They fall as the lags grow, so that an interval from long lags over few blocks is wide.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from estimators.cells import Model
from estimators.inference import EstimationError
from estimators.ols import Fit, Matrix, Vector

Pairs = tuple[float, NDArray[np.intp], NDArray[np.intp]]


@dataclass(frozen=True, slots=True, eq=False)
class Hac:
    """Lagged errors of a fitted block regression.

    Attributes:
        regression: The fit; its groups are the randomized units.
        pairs: For every lag its weight and the positions of units that are so far apart, later and earlier.
    """

    regression: Fit
    pairs: tuple[Pairs, ...]

    def contrast(self, c: ArrayLike) -> tuple[float, float, float]:
        """``c' coef``, its standard error and its degrees of freedom."""
        loads = self.regression.q @ self.regression.loadings(c)
        estimate = float(np.asarray(c, dtype=np.float64) @ self.regression.coef[:, 0])
        return estimate, float(np.sqrt(self.variance(c))), self._df(loads)

    def variance(self, c: ArrayLike) -> float:
        """Variance of ``c' coef``."""
        scores = self._sums(
            (self.regression.q @ self.regression.loadings(c))[:, None] * self.regression.residuals[:, :1]
        )
        n, p = self.regression.n_groups, self.regression.q.shape[1]
        return float((scores * self._smoothed(scores)).sum() * n / (n - p))

    def _df(self, loads: Vector) -> float:
        """``tr(K C)^2 / tr((K C)^2)``, ``K`` the weights of the lags and ``C`` the scores' covariance when residuals
        are those of independent equal errors: ``diag(d) - R R'``."""
        d = self._sums((loads**2)[:, None])[:, 0]
        r = self._sums(loads[:, None] * self.regression.q)
        kr = self._smoothed(r)
        trace = d.sum() - (r * kr).sum()
        square = (d * d).sum() + sum(2.0 * w * w * (d[late] * d[early]).sum() for w, late, early in self.pairs)
        square += -2.0 * (d[:, None] * kr * kr).sum() + ((r.T @ kr) ** 2).sum()
        if not (trace > 1e-12 * d.sum() and square > 0.0):
            raise EstimationError(
                "no degrees of freedom are left for the lagged errors: too few blocks for so many lags"
            )
        return float(trace * trace / square)

    def _sums(self, rows: Matrix) -> Matrix:
        out = np.zeros((self.regression.n_groups, rows.shape[1]))
        np.add.at(out, self.regression.groups, rows)
        return out

    def _smoothed(self, sums: Matrix) -> Matrix:
        """``K`` times the units' sums."""
        out = sums.copy()
        for weight, late, early in self.pairs:
            # A unit has at most one neighbour at a lag, so that no position comes twice.
            out[late] += weight * sums[early]
            out[early] += weight * sums[late]
        return out


def hac(model: Model, regression: Fit, lags: int) -> Hac:
    """Lagged errors for a block regression.

    Args:
        model: The design; its cells' ``slot`` is the time grid.
        regression: The fit of that design.
        lags: Bandwidth ``L``: blocks up to ``L`` apart may be alike.

    Raises:
        EstimationError: Half as many lags as blocks or more, or not more randomized units than parameters.
    """
    if lags < 1:
        raise ValueError("lags must be at least 1")
    n_blocks = len(np.unique(model.cells.slot))
    if 2 * lags >= n_blocks:
        raise EstimationError(
            f"hac: {lags} is too long for {n_blocks} blocks; fewer lags than half of them can be told"
        )
    n, p = regression.n_groups, regression.q.shape[1]
    if n <= p:
        raise EstimationError(f"{n} randomized units are too few for lagged errors of a regression with {p} parameters")
    by_block = model.groups is model.cells.block
    first = np.unique(regression.groups, return_index=True)[1]
    slot = model.cells.slot[first]
    series = np.zeros(n, dtype=np.intp) if by_block else model.cells.cluster[first]
    return Hac(regression, tuple((1.0 - j / (lags + 1.0), *_apart(series, slot, j)) for j in range(1, lags + 1)))


def _apart(series: NDArray[np.intp], slot: NDArray[np.intp], lag: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Positions of units of one series that are ``lag`` blocks apart: the later and the earlier of each two."""
    low = slot.min()
    place = series * (slot.max() - low + 1 + lag) + (slot - low) + lag
    order = np.argsort(place)
    at = np.minimum(np.searchsorted(place[order], place - lag), len(place) - 1)
    late = np.flatnonzero(place[order][at] == place - lag)
    return late, order[at[late]]
