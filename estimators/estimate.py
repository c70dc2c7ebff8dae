"""The one result type of all estimators."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Estimate:
    """An effect of treatment against control.

    Attributes:
        method: Name of the method, as in the contract.
        estimate: Treatment minus control, in the outcome's unit.
        std_error: Its standard error, same unit.
        df: Degrees of freedom of the reference t distribution (``inf``: normal).
        statistic, p_value: Two-sided test of no effect.
        ci_low, ci_high: Interval at ``1 - alpha``.
        relative: ``estimate / control_value``; None, with ``relative_reason``, where it has no meaning.
        relative_ci_low, relative_ci_high: Its interval, from the log ratio.
        control_value, treatment_value: The outcome's value by arm.
        n_control, n_treatment: Independent observations by arm.
        diagnostics: What the method shows beside the number.
    """

    method: str
    estimate: float
    std_error: float
    df: float
    statistic: float
    p_value: float
    ci_low: float
    ci_high: float
    control_value: float
    treatment_value: float
    n_control: int
    n_treatment: int
    relative: float | None = None
    relative_ci_low: float | None = None
    relative_ci_high: float | None = None
    relative_reason: str = ""
    diagnostics: Mapping[str, Any] = field(default_factory=dict)
