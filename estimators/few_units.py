"""Errors where an arm rests on few units.

The plain sum of squares over units takes every unit of the log for a draw that tells the error. Where treatment ran in
six of sixty units only those six do. Where either arm has fewer than 20 effective units (Kish's, of the units' weights)

- a unit's square is divided by one less its own share of its arm's weight, since it pulled the arm's mean towards
  itself (Bell and McCaffrey 2002): with ``k`` equal units an arm's variance is divided by ``k - 1``, as Welch's is;
- the interval takes one less than the effective number of squares for its degrees of freedom (Satterthwaite 1946), each
  expected to be as large as its unit's weights make it.

A unit of both arms belongs to each by its share of the arm's weight. From 20 on errors are those of the packages that
the methods are tested against.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from estimators.inference import EstimationError

Vector = NDArray[np.float64]
FEW = 20.0
_ALONE = 1e-9


@dataclass(frozen=True, slots=True, eq=False)
class FewUnits:
    """Units' parts in two arms, of which one has few.

    Attributes:
        shares: ``(2, G)`` each unit's share of control's and of treatment's weight.
        belongs: ``(2, G)`` part of each unit that is control's and treatment's; they sum to 1, or 0 without weight.
    """

    shares: NDArray[np.float64]
    belongs: NDArray[np.float64]

    def square(self, sums: Vector) -> float:
        """Sum of squares of units' sums of influences, each over one less the unit's own pull."""
        pull = (self.belongs * self.shares).sum(axis=0)
        return float((sums**2 / (1.0 - np.minimum(pull, 1.0 - _ALONE))).sum())

    def df(self, sums: Vector) -> float:
        """Degrees of freedom of that sum, 1 at least."""
        of_arms = self.belongs @ sums**2
        expected = (of_arms / (self.shares**2).sum(axis=1)) @ self.shares**2
        whole = float(expected.sum())
        if not whole > 0.0:
            return 1.0
        return max(whole**2 / float(expected @ expected) - 1.0, 1.0)


def few_units(weights: tuple[Vector, Vector]) -> FewUnits | None:
    """None where both arms have units enough for plain errors.

    Args:
        weights: Units' ``(G,)`` weights in control and in treatment, 0 where a unit has no rows there.

    Raises:
        EstimationError: An arm rests on one unit alone.
    """
    sizes = [_kish(w) for w in weights]
    for name, size in zip(("control", "treatment"), sizes, strict=True):
        if not size > 1.0 + _ALONE:
            raise EstimationError(f"{name} rests on one unit alone, so nothing says how much units differ")
    if min(sizes) >= FEW:
        return None
    shares = np.stack([w / w.sum() for w in weights])
    both = shares.sum(axis=0)
    return FewUnits(shares, np.divide(shares, both, out=np.zeros_like(shares), where=both > 0.0))


def _kish(w: Vector) -> float:
    largest = float(w.max(initial=0.0))
    scaled = w / largest if largest > 0.0 else w
    square = float(scaled @ scaled)
    return float(scaled.sum()) ** 2 / square if square > 0.0 else 0.0
