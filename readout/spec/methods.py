"""Which method fits which design, and the options of each method with their defaults."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from readout.spec.problems import Finding, listing, show, suggest, unknown_key


@dataclass(frozen=True, slots=True)
class Estimator:
    """The method of estimation.

    Attributes:
        method: Its name; ``auto`` is already resolved to the first method of the design.
        options: Every option of the method, at its default where the spec is silent.
        said: The options that the spec gives.
    """

    method: str
    options: Mapping[str, Any] = field(default_factory=dict)
    said: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Option:
    """What an option takes: one of some words, a number, or a column that names the folds.

    Attributes:
        default: Its value where the spec is silent.
        choices: Words (or booleans) that it takes.
        least: It also takes whole numbers from here on.
        below: It also takes numbers above 0 and below this.
        column: It also takes ``{column: NAME}``.
    """

    default: Any
    choices: tuple[Any, ...] = ()
    least: int | None = None
    below: float | None = None
    column: bool = False

    def accepts(self, value: Any) -> bool:
        """Whether a plain YAML value is one that the option takes."""
        if any(value == choice and type(value) is type(choice) for choice in self.choices):
            return True
        if isinstance(value, Mapping):
            return (
                self.column and list(value) == ["column"] and isinstance(value["column"], str) and bool(value["column"])
            )
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        if self.below is not None and 0 < value < self.below:
            return True
        return self.least is not None and isinstance(value, int) and value >= self.least

    def expected(self) -> str:
        """What it takes, in words."""
        parts = ["true" if c is True else "false" if c is False else str(c) for c in self.choices]
        if self.least is not None:
            parts.append(f"a whole number of at least {self.least}")
        if self.below is not None:
            parts.append("a number above 0" + (f" and below {self.below:g}" if self.below < float("inf") else ""))
        if self.column:
            parts.append("{column: NAME}")
        return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} or {parts[-1]}"

    def schema(self) -> dict[str, Any]:
        """JSON Schema of its values."""
        some: list[dict[str, Any]] = [{"enum": list(self.choices)}] if self.choices else []
        if self.least is not None:
            some.append({"type": "integer", "minimum": self.least})
        if self.below is not None:
            bound = {"exclusiveMaximum": self.below} if self.below < float("inf") else {}
            some.append({"type": "number", "exclusiveMinimum": 0, **bound})
        if self.column:
            column = {"column": {"type": "string", "minLength": 1, "description": "Column that names each row's fold."}}
            some.append({"type": "object", "properties": column, "required": ["column"], "additionalProperties": False})
        return {"anyOf": some, "default": self.default}


METHODS: Mapping[str, tuple[str, ...]] = {
    "user_rct": ("difference_in_means", "cuped", "regression_adjusted"),
    "request_rct": ("difference_in_means", "cuped", "regression_adjusted"),
    "cluster_rct": ("cluster_means", "cluster_robust", "randomization_inference"),
    "switchback": ("block_regression", "horvitz_thompson", "randomization_inference"),
    "observational": ("aipw", "outcome_regression", "ipw", "matching", "dml"),
    "did": ("callaway_santanna", "two_by_two", "event_study"),
    "synthetic_control": ("synthetic_control", "synthetic_did"),
    "iv": ("two_stage_least_squares", "wald"),
    "rdd": ("local_linear",),
    "ope": ("doubly_robust", "direct_method", "ips", "snips"),
}
"""Methods by design; the first is the choice of ``auto``."""

_FOLDS = Option(5, least=1, column=True)
_WEIGHTING = {
    "trim": Option("none", ("none",), below=0.5),
    "folds": _FOLDS,
    "repeats": Option(1, least=1),
    "propensity": Option("logit", ("logit", "probit", "linear", "boosting")),
    "outcome": Option("linear", ("linear", "logit", "boosting")),
}
_CLIP = Option("none", ("none",), below=float("inf"))
_PROPENSITY = Option("logged", ("logged", "logit", "boosting"))
_REWARD = {"outcome": Option("linear", ("linear", "boosting")), "folds": _FOLDS}
_OFF_POLICY = {"clip": _CLIP, **_REWARD, "propensity": _PROPENSITY}
_IV = {"variance": Option("HC1", ("HC1", "classical", "cluster"))}
_BY_ROWS = Option("rows", ("rows", "units"))

OPTIONS: Mapping[str, Mapping[str, Option]] = {
    "difference_in_means": {"variance": Option("CR1", ("CR1", "CR2"))},
    "cuped": {},
    "regression_adjusted": {},
    "cluster_means": {"weights": Option("units", ("units", "rows"))},
    "cluster_robust": {"variance": Option("CR2", ("CR2", "CR1", "CR3", "wild")), "weights": _BY_ROWS},
    "block_regression": {"hac": Option("none", ("none",), least=1), "weights": _BY_ROWS},
    "horvitz_thompson": {},
    "randomization_inference": {"draws": Option(9999, least=1)},
    "aipw": _WEIGHTING,
    "ipw": _WEIGHTING,
    "outcome_regression": _WEIGHTING,
    "dml": {"model": Option("plr", ("plr", "irm")), **_WEIGHTING},
    "matching": {
        "neighbours": Option(1, least=1),
        "metric": Option("mahalanobis", ("mahalanobis", "inverse_variance", "propensity")),
        "bias_adjustment": Option(True, (True, False)),
        "caliper": Option("none", ("none",), below=float("inf")),
    },
    "two_by_two": {},
    "event_study": {},
    "callaway_santanna": {"aggregate": Option("simple", ("simple", "dynamic", "group", "calendar"))},
    "synthetic_control": {},
    "synthetic_did": {},
    "two_stage_least_squares": _IV,
    "wald": _IV,
    "local_linear": {
        "kernel": Option("triangular", ("triangular", "uniform", "epanechnikov")),
        "order": Option(1, least=1),
        "variance": Option("nn", ("nn", "hc0", "hc1", "hc2", "hc3")),
    },
    "doubly_robust": {**_OFF_POLICY, "switch": _CLIP},
    "direct_method": _OFF_POLICY,
    "ips": _OFF_POLICY,
    "snips": _OFF_POLICY,
}


def parse_estimator(given: Any, kind: str) -> tuple[Estimator | None, list[Finding]]:
    """The estimator of a design.

    Args:
        given: ``auto``, a method's name, or a mapping with ``method`` and its options.
        kind: The design's kind.

    Returns:
        The estimator, or None with what is wrong.
    """
    options = dict(given) if isinstance(given, Mapping) else {"method": given}
    method, at = options.pop("method", "auto"), ("estimator", "method")
    path = at if isinstance(given, Mapping) and "method" in given else ("estimator",)
    known = METHODS[kind]
    if method == "auto":
        method = known[0]
    if method not in known:
        elsewhere = [design for design, names in METHODS.items() if method in names]
        message = f"expected auto or a method of {kind}, got {show(method)}" + suggest(method, ("auto", *known))
        belongs = f"; {method} belongs to {listing(elsewhere)}" if elsewhere else ""
        return None, [Finding(path, message, f"{kind} has {listing(known)}{belongs}")]
    findings = []
    for name, value in options.items():
        option = OPTIONS[method].get(name)
        if option is None:
            findings.append(_unknown_option(method, name))
        elif not option.accepts(value):
            findings.append(Finding(("estimator", name), f"expected {option.expected()}, got {show(value)}"))
    defaults = {name: option.default for name, option in OPTIONS[method].items()}
    return (None, findings) if findings else (Estimator(method, {**defaults, **options}, tuple(options)), [])


def _unknown_option(method: str, name: str) -> Finding:
    known = list(OPTIONS[method])
    finding = unknown_key(("estimator", name), ["method", *known])
    hint = f"{method} has {listing(known)}" if known else f"{method} has no options"
    return Finding(finding.path, f"unknown key for {method}{suggest(name, ['method', *known])}", hint, on_key=True)
