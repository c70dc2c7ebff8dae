"""Terms of an energy game, each with its exact Shapley rule: a file a term."""

from __future__ import annotations

from attribution.owen import TooDear
from attribution.terms.base import Amount, Term
from attribution.terms.fixed import Fixed
from attribution.terms.hinge import Hinge, StepHinge
from attribution.terms.maximum import Maximum, Padded
from attribution.terms.own import Own
from attribution.terms.prefix import Prefix
from attribution.terms.span import Span
from attribution.terms.square import Square
from attribution.terms.steps import Steps, StepTable

__all__ = [
    "Amount",
    "Fixed",
    "Hinge",
    "Maximum",
    "Own",
    "Padded",
    "Prefix",
    "Span",
    "Square",
    "StepHinge",
    "StepTable",
    "Steps",
    "Term",
    "TooDear",
]
