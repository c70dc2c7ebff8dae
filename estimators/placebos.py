"""Placebos in space: the treatment is given in thought to other units, and the treated are ranked among them.

Under no effect, and units that are exchangeable, the treated's place in the ranking is uniform, however many units
there are. Sources: Abadie, Diamond and Hainmueller (2010), *Synthetic control methods for comparative case studies*,
Journal of the American Statistical Association 105, section 3.4, for the rank of the ratio of errors after the start
and before; Firpo and Possebom (2018), *Synthetic control method: inference, sensitivity analysis and confidence sets*,
Journal of Causal Inference 6, for its inversion.

One treated unit is ranked among all units and is no donor to the others, so that no placebo holds part of its effect;
the price is one donor more for the treated (in 1,500 panels of 20 units without an effect, 5 % tests rejected in 5 %
under common factors, in 6 % under pure noise). Several are ranked among sets of as many units, drawn from all: the mean
of several units has other gaps than a single unit, and among sets that hold no treated unit their rank is not uniform.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from estimators.donors import Block, Codes, Matrix, Vector
from estimators.inference import EstimationError
from estimators.simplex import simplex_weights

_TIE = 1e-12  # ratios this close, relative, are the same


@dataclass(frozen=True, slots=True, eq=False)
class Fit:
    """A synthetic control of the mean of some units.

    Attributes:
        rows: Units whose mean it is.
        donors: ``(k,)`` rows that may take part.
        weights: ``(k,)`` theirs.
        gap: ``(T,)`` mean of the units minus the mix.
        share: Part of the treated units' effect that the gap holds: 1 for the treated themselves.
        start: First period after.
    """

    rows: Codes
    donors: Codes
    weights: Vector
    gap: Vector
    share: float
    start: int

    @property
    def before(self) -> float:
        """Root mean square of the gap before the start."""
        return root_mean_square(self.gap[: self.start])

    @property
    def after(self) -> float:
        """Root mean square of the gap from the start on."""
        return root_mean_square(self.gap[self.start :])

    @property
    def ratio(self) -> float:
        """Error after over error before; infinite where the fit before is perfect."""
        return self.after / self.before if self.before > 0.0 else math.inf

    @property
    def mean(self) -> float:
        """Mean gap from the start on."""
        return float(self.gap[self.start :].mean())


@dataclass(frozen=True, slots=True, eq=False)
class Ranking:
    """Fits among which the treated's is ranked: the treated's own first.

    Attributes:
        fits: The treated's, then the placebos'.
        exact: All sets of as many units were taken; otherwise draws.
    """

    fits: tuple[Fit, ...]
    exact: bool

    def p_value(self, *, of_mean: bool = False) -> float:
        """Share of the fits whose ratio is at least the treated's, the treated counted, under no effect.

        Args:
            of_mean: Rank the size of the mean gap over the error before, not the error after over that before.
        """
        return float(self._counts(np.zeros(1), of_mean)[0]) / len(self.fits)

    def interval(self, alpha: float, *, of_mean: bool) -> tuple[float, float] | None:
        """Least and largest effect whose p-value is above ``alpha``; None where there is none.

        ``of_mean``: of the mean effect, whatever its path; a mean gap of exactly the effect is never rejected, so the
        interval holds the estimate. Otherwise: of effects that are the same in all periods. Infinite ends where
        effects of any size are not rejected. Exact: the p-value changes only where two ratios are equal.
        """
        steps = self._steps(of_mean)
        if not len(steps):
            return (-math.inf, math.inf) if self.p_value(of_mean=of_mean) > alpha else None
        reach = max(1.0, float(np.abs(steps).max()))
        between = np.concatenate([[steps[0] - reach], (steps[1:] + steps[:-1]) / 2.0, [steps[-1] + reach]])
        kept = np.flatnonzero(self._counts(between, of_mean) / len(self.fits) > alpha)
        if not len(kept):
            return None
        edges = np.concatenate([[-math.inf], steps, [math.inf]])
        return float(edges[kept[0]]), float(edges[kept[-1] + 1])

    def spread(self) -> float:
        """Root mean square of the placebos' mean gaps, without what they hold of the treated's effect."""
        effect = self.fits[0].mean
        return root_mean_square(np.array([fit.mean - fit.share * effect for fit in self.fits[1:]]))

    def _parabolas(self, of_mean: bool) -> tuple[Matrix, Vector]:
        """``(n, 3)`` squared size of the gap after the start as a parabola of the effect, and the squares before."""
        mean = np.array([fit.mean for fit in self.fits])
        share = np.array([fit.share for fit in self.fits])
        size = mean**2 if of_mean else np.array([fit.after**2 for fit in self.fits])
        return np.column_stack([share**2, -2.0 * share * mean, size]), np.array([fit.before**2 for fit in self.fits])

    def _counts(self, effects: Vector, of_mean: bool) -> Vector:
        """How many fits have a ratio at least that of the treated, by effect."""
        parabolas, before = self._parabolas(of_mean)
        size = parabolas @ np.vstack([effects**2, effects, np.ones(len(effects))])
        ours, theirs = size[0] * before[:, None], size * before[0]
        at_least = theirs >= ours - _TIE * (np.abs(ours) + np.abs(theirs))
        at_least[0] = True
        return np.asarray(at_least.sum(axis=0), dtype=np.float64)

    def _steps(self, of_mean: bool) -> Vector:
        """Effects at which the treated's ratio equals another's, in order."""
        parabolas, before = self._parabolas(of_mean)
        apart = parabolas[1:] * before[0] - parabolas[0] * before[1:, None]
        steps = [self.fits[0].mean]
        for a, b, c in apart.tolist():
            steps += _roots(a, b, c)
        return np.unique(steps)


def rank(block: Block, *, draws: int, seed: int) -> Ranking:
    """Fits the treated and their placebos.

    Args:
        draws: Largest number of sets of units where several are treated; all sets where there are no more than these.
        seed: Of their draws.

    Raises:
        EstimationError: The treated's mix meets every period before the start exactly.
    """
    ours = fit(block, block.treated, block.donors)
    reach = float(np.abs(block.y[block.donors] - block.y[block.treated].mean(axis=0))[:, : block.start].max())
    if ours.before <= 1e-9 * reach:
        raise EstimationError(
            f"a mix of the {len(block.donors)} untreated units meets all {block.start} periods before the start "
            "exactly, so how well it fits says nothing: take more periods before the start, or fewer untreated units"
        )
    if len(block.treated) == 1:
        return Ranking(
            (ours, *(fit(block, np.array([j]), block.donors[block.donors != j]) for j in block.donors)), True
        )
    n, many = len(block.y), len(block.treated)
    exact = math.comb(n, many) <= draws
    sets = _all(n, many, block.treated) if exact else _drawn(n, many, draws - 1, seed)
    everyone = np.arange(n)
    return Ranking((ours, *(fit(block, rows, np.setdiff1d(everyone, rows)) for rows in sets)), exact)


def fit(block: Block, rows: Codes, donors: Codes, start: int | None = None) -> Fit:
    """The mix of donors nearest to the mean of the rows before the start (that of the block unless given)."""
    start = block.start if start is None else start
    target = block.y[rows].mean(axis=0)
    weights = simplex_weights(block.y[donors, :start].T, target[:start])
    share = float(np.isin(rows, block.treated).mean() - weights @ np.isin(donors, block.treated))
    return Fit(rows, donors, weights, target - weights @ block.y[donors], share, start)


def root_mean_square(values: NDArray[np.float64]) -> float:
    """Root of the mean square; 0 for no values."""
    return math.sqrt(float(values @ values) / len(values)) if len(values) else 0.0


def _all(n: int, many: int, treated: Codes) -> Iterator[Codes]:
    """Every set but the treated's."""
    ours = tuple(treated.tolist())
    return (np.array(rows) for rows in itertools.combinations(range(n), many) if rows != ours)


def _drawn(n: int, many: int, draws: int, seed: int) -> Iterator[Codes]:
    rng = np.random.default_rng(seed)
    return (np.sort(rng.choice(n, many, replace=False)) for _ in range(draws))


def _roots(a: float, b: float, c: float) -> list[float]:
    """Real roots of ``a x^2 + b x + c``, without cancellation."""
    size = max(abs(a), abs(b), abs(c))
    if size == 0.0:
        return []
    square = b * b - 4.0 * a * c
    if square < -1e-13 * (b * b + abs(4.0 * a * c)):
        return []
    half = -0.5 * (b + math.copysign(math.sqrt(max(square, 0.0)), b))
    found = [half / a] if abs(a) > 1e-14 * size else []
    return found + ([c / half] if half != 0.0 else [])
