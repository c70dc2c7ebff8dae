"""E-values: how strong an unmeasured confounder must be, on the scale of risk ratios, to explain an effect away.

Sources: VanderWeele and Ding (2017), *Sensitivity analysis in observational research: introducing the E-value*, Annals
of Internal Medicine 167; for differences of means its table 2 (the risk ratio is about ``exp(0.91 d)``).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from estimators.inference import EstimationError

_PER_SPREAD = 0.91
_PER_ERROR = 1.78


@dataclass(frozen=True, slots=True)
class EValue:
    """Strengths of a confounder.

    Attributes:
        point: Least risk ratio that a confounder must have with the treatment and with the outcome both, beyond the
            covariates, to move the effect to none; 1: none is needed.
        limit: The same for the end of the interval that is nearer to no effect; 1 where the interval holds no effect.
        risk_ratio, ci_low, ci_high: What they rest on.
    """

    point: float
    limit: float
    risk_ratio: float
    ci_low: float
    ci_high: float


def evalue(risk_ratio: float, ci_low: float, ci_high: float) -> EValue:
    """E-values of a risk ratio: the outcome's share with treatment over its share without.

    Args:
        risk_ratio: Positive; ``1 + relative`` of an effect on a share.
        ci_low, ci_high: Its interval; ``ci_low`` may be 0 or less, ``ci_high`` infinite.

    Raises:
        EstimationError: A risk ratio that is not a positive number, or an interval that does not hold it.
    """
    if not (math.isfinite(risk_ratio) and risk_ratio > 0.0):
        raise EstimationError("an E-value needs a positive risk ratio")
    if not ci_low <= risk_ratio <= ci_high:
        raise EstimationError("the interval does not hold the risk ratio")
    limit = 1.0 if ci_low <= 1.0 <= ci_high else _of(ci_low if risk_ratio > 1.0 else ci_high)
    return EValue(_of(risk_ratio), limit, risk_ratio, ci_low, ci_high)


def evalue_of_difference(estimate: float, std_error: float, spread: float) -> EValue:
    """E-values of a difference of means, by way of its approximate risk ratio (a 95 % interval).

    Args:
        estimate, std_error: In the outcome's unit.
        spread: Standard deviation of the outcome within arms, same unit.

    Raises:
        EstimationError: A spread or standard error that is not positive, or a difference of more than 700 spreads.
    """
    if not (spread > 0.0 and std_error > 0.0 and math.isfinite(estimate)):
        raise EstimationError("an E-value of a difference needs an outcome that varies")
    middle, half = _PER_SPREAD * estimate / spread, _PER_ERROR * std_error / spread
    if abs(middle) + half > 700.0:
        raise EstimationError("the difference is beyond what a risk ratio can express")
    return evalue(math.exp(middle), math.exp(middle - half), math.exp(middle + half))


def _of(ratio: float) -> float:
    above = ratio if ratio >= 1.0 else 1.0 / ratio
    return above + math.sqrt(above * (above - 1.0))
