"""What synthetic methods take from a panel: the treated units, which all start together, and the units to mix."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from estimators.inference import EstimationError
from estimators.panel import Panel

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]
Codes = NDArray[np.intp]

_NAMED = 5  # units named in a message


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """Units over periods without gaps, of which some start treatment together and the others never do.

    Attributes:
        y: ``(n, T)`` outcomes.
        treated: ``(n1,)`` rows of the treated units.
        donors: ``(n0,)`` rows of the untreated ones.
        start: First treated period.
        units, periods: Their names.
    """

    y: Matrix
    treated: Codes
    donors: Codes
    start: int
    units: tuple[str, ...]
    periods: tuple[str, ...]

    def names(self, rows: Codes) -> str:
        """Names of units: ``a``, or ``a, b``."""
        return ", ".join(self.units[i] for i in rows)


def block(panel: Panel, method: str) -> Block:
    """The panel as synthetic methods need it; units treated in every period are left out.

    Args:
        panel: One start, or never treated.
        method: Name of the method, for messages.

    Raises:
        EstimationError: No treated unit, several starts, missing cells (with the units named), fewer than two untreated
            units, fewer than two periods before the start, or outcomes that do not vary.
    """
    seen = panel.take(panel.first > 0) if (panel.first > 0).any() else panel
    _complete(seen, method)
    used = panel.comparable()
    if len(used.groups) > 1:
        raise EstimationError(
            f"units start treatment in several periods; {method} takes one start, callaway_santanna takes several"
        )
    start = used.groups[0]
    treated = np.flatnonzero(used.first == start)
    donors = np.flatnonzero(used.first != start)
    if len(donors) < 2:
        raise EstimationError(f"one untreated unit; {method} needs at least two to mix")
    if start < 2:
        raise EstimationError(f"one period before the treatment starts; {method} needs at least two")
    if not float(np.ptp(used.y)) > 0.0:
        raise EstimationError("the outcome does not vary, so nothing says how sure the estimate is")
    return Block(used.y, treated, donors, start, used.units, used.periods)


def _complete(panel: Panel, method: str) -> None:
    """Refuses missing cells, and names the units that have them."""
    gaps = np.flatnonzero(np.isnan(panel.y).any(axis=1))
    if not len(gaps):
        return
    named = ", ".join(panel.units[i] for i in gaps[:_NAMED])
    more = f" and {len(gaps) - _NAMED} more" if len(gaps) > _NAMED else ""
    lack, leave = ("unit", "it") if len(gaps) == 1 else ("units", "them")
    raise EstimationError(
        f"{lack} {named}{more} {'has' if len(gaps) == 1 else 'have'} no outcome in some periods; {method} needs every "
        f"unit in every period: leave {leave} out, or take longer periods"
    )
