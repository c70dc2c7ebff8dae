"""Numbers as people read them: few digits, no more than the interval supports, a dash where there is none."""

from __future__ import annotations

import math
from collections.abc import Iterable
from decimal import Decimal

DASH = "\u2013"
_MAX_DECIMALS = 7
_SMALLEST = 1e-4  # of what is written without an exponent


def number(value: float | None, digits: int = 3, signed: bool = False) -> str:
    """A number with ``digits`` significant digits (whole from a thousand on), or a dash."""
    if value is None or not math.isfinite(value):
        return DASH
    if value == 0:
        return "0"
    magnitude = abs(value)
    sign = "+" if signed else "-"  # "-" is format's default: a sign only where it is negative
    if magnitude < _SMALLEST or magnitude >= 1e12:
        return f"{value:{sign}.{digits - 1}e}"
    if magnitude >= 10.0**digits:
        return f"{value:{sign},.0f}"
    return f"{Decimal(format(value, f'.{digits - 1}e')):{sign},f}"


def count(value: float | None) -> str:
    """A count with thousands separated, or a dash."""
    return DASH if value is None or not math.isfinite(value) else f"{value:,.0f}"


def decimals(values: Iterable[float | None], digits: int = 3) -> int | None:
    """Decimals that give the spread of ``values`` ``digits`` significant digits; None where that needs too many."""
    finite = [v for v in values if v is not None and math.isfinite(v)]
    spread = max(finite) - min(finite) if finite else 0.0
    spread = spread or max((abs(v) for v in finite), default=0.0)
    if spread == 0:
        return 0
    needed = digits - 1 - math.floor(math.log10(spread))
    return None if needed > _MAX_DECIMALS else max(needed, 0)


def fixed(value: float | None, places: int | None, signed: bool = False) -> str:
    """A number with that many decimals, thousands separated; by significant digits where ``places`` is None."""
    if value is None or not math.isfinite(value):
        return DASH
    if places is None:
        return number(value, signed=signed)
    rounded = round(value, places)
    if rounded == 0:
        return f"{0:.{places}f}"
    return f"{rounded:{'+' if signed else '-'},.{places}f}"


def effect(estimate: float | None, low: float | None, high: float | None) -> str:
    """``-25.3 [-31.2, -19.4]``: signed, all three with the decimals that the interval's width supports."""
    places = decimals((low, high) if low is not None and high is not None else (estimate,))
    return _with_interval(fixed(estimate, places, True), fixed(low, places, True), fixed(high, places, True))


def relative(estimate: float | None, low: float | None, high: float | None) -> str:
    """``-6.1 % [-7.5 %, -4.7 %]`` from fractions; two significant digits of the interval's width."""
    places = decimals(
        [100 * v for v in ((low, high) if low is not None and high is not None else (estimate,)) if v is not None],
        digits=2,
    )
    return _with_interval(*(_percent(v, places) for v in (estimate, low, high)))


def _percent(value: float | None, places: int | None, signed: bool = True) -> str:
    return DASH if value is None or not math.isfinite(value) else f"{fixed(100 * value, places, signed)} %"


def _with_interval(estimate: str, low: str, high: str) -> str:
    if estimate == DASH:
        return DASH
    return estimate if low == DASH and high == DASH else f"{estimate} [{low}, {high}]"


def percent(value: float | None, digits: int = 2, signed: bool = False) -> str:
    """A fraction as a percentage, ``0.012`` as ``1.2 %``."""
    if value is None or not math.isfinite(value):
        return DASH
    return f"{number(100 * value, digits, signed)} %"


def p_value(value: float | None) -> str:
    """A p-value with three decimals, never a bare 0 or 1."""
    if value is None or not math.isfinite(value):
        return DASH
    if value < 0.001:
        return "<0.001"
    return ">0.999" if value > 0.999 else f"{value:.3f}"


def level(alpha: float) -> str:
    """The level of an interval: ``95 %`` for an alpha of 0.05."""
    return f"{100 * (1 - alpha):.6g} %"
