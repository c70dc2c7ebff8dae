"""What fitted propensities look like, and how well they tell the arms apart out of fold."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from estimators.nuisance_design import Vector

SHOWN = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)


def propensity_summary(propensity: Vector, treated: NDArray[np.bool_]) -> dict[str, Any]:
    """Describes propensities.

    Returns:
        ``min``, ``max``, ``quantiles`` ``{share: value}``; ``auc``, the chance that a treated row has a higher
        propensity than a control (0.5: treatment looks random given the covariates); ``explained``, the share of a
        constant's log loss that they save, None where a probability is not within 0 to 1.
    """
    control, treatment = np.sort(propensity[~treated]), np.sort(propensity[treated])
    below = np.searchsorted(control, treatment, "left") + np.searchsorted(control, treatment, "right")
    quantiles = np.quantile(propensity, SHOWN)
    return {
        "min": float(min(control[0], treatment[0])),
        "max": float(max(control[-1], treatment[-1])),
        "quantiles": {str(q): float(v) for q, v in zip(SHOWN, quantiles, strict=True)},
        "auc": float(below.mean()) / (2.0 * len(control)),
        "explained": _explained(control, treatment),
    }


def _explained(control: Vector, treatment: Vector) -> float | None:
    if not (treatment[0] > 0.0 and control[-1] < 1.0 and treatment[-1] <= 1.0 and control[0] >= 0.0):
        return None
    n = len(control) + len(treatment)
    share = len(treatment) / n
    constant = share * np.log(share) + (1.0 - share) * np.log(1.0 - share)
    return 1.0 - float(np.log1p(-control).sum() + np.log(treatment).sum()) / n / float(constant)
