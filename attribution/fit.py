"""Energy models from measured batches: non-negative least squares on what batches did.

A batch's measured facility energy, over the PUE and less the host's joules, is a sum of parameters of the energy model
times what the batch did: steps, output tokens, prompt tokens and their squares, tokens of context read. The parameters
are fitted so that the sum of squared *relative* errors is least and none is negative (Lawson and Hanson 1974, as in
scipy.optimize.nnls); host power, step times and PUE are taken from the model that the fit starts from, since energy
alone cannot tell them apart from the rest.

Standard errors and intervals are of a bootstrap over groups of batches (at most 200, cut at random), which holds at the
bound of zero too. How well it predicts is told by batches that were held out: five folds at random.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attribution.model import JOULES_PER_WH, EnergyModel
from attribution.stays import Stays
from attribution.terms import Fixed, Maximum, Own, Prefix, Span, Steps, Term

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

DRAWS, GROUPS, FOLDS = 500, 200, 5
ALIKE = 1e-7  # part of a column that the columns before it leave: below, the two cannot be told apart
INFLATED = 10.0  # times that a variance is larger for the other columns' sake, from which it is worth a word
ALWAYS = ("e_tok_j", "e0_j", "prefill_j_per_token", "kv_j_per_token_step", "prefill_j_per_token2")
WHERE_THE_MODEL_HAS_IT = ("longest_j_per_token", "span_j_per_step", "fixed_j")
OF = {
    "e_tok_j": "output tokens",
    "e0_j": "decode steps",
    "prefill_j_per_token": "prompt tokens",
    "kv_j_per_token_step": "tokens of context read",
    "prefill_j_per_token2": "squared prompt tokens",
    "longest_j_per_token": "longest outputs",
    "span_j_per_step": "steps from first to last",
    "fixed_j": "batches",
}


@dataclass(frozen=True, slots=True)
class Deeds:
    """What batches did and what they were measured with.

    Attributes:
        columns: (n, p) One column a parameter, in the order of ``names``: joules at a parameter of 1.
        names: The parameters.
        host_j: (n,) Host joules that no parameter changes.
        measured_j: (n,) Measured joules before PUE: those of GPUs and host.
    """

    columns: Floats
    names: tuple[str, ...]
    host_j: Floats
    measured_j: Floats

    @classmethod
    def of(cls, stays: Stays, model: EnergyModel, usable: NDArray[np.bool_]) -> Deeds:
        """Those of the ``usable`` (n_batches,) batches, for a model like ``model``.

        Raises:
            ValueError: The log has no measured energy.
        """
        if stays.measured_wh is None:
            raise ValueError("measured_wh: a fit needs the measured energy of batches")
        names = ALWAYS + tuple(name for name in WHERE_THE_MODEL_HAS_IT if getattr(model, name))
        columns = np.column_stack([_term(name, model.host_per_prefill).totals(stays) for name in names])
        host: Floats = Steps(model.host_j_per_step).totals(stays)
        host = host + Own(step_j=model.host_j_per_request_step).totals(stays)
        measured = stays.measured_wh * JOULES_PER_WH / model.pue
        return cls(columns[usable], names, host[usable], measured[usable])

    @classmethod
    def join(cls, parts: Sequence[Deeds]) -> Deeds:
        """Those of several parts of a log."""
        columns, host, measured = (
            np.concatenate([getattr(part, name) for part in parts]) for name in ("columns", "host_j", "measured_j")
        )
        return cls(columns, parts[0].names, host, measured)


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of the fitted model.

    Attributes:
        name: Key of the energy model.
        value: Joules.
        before: Its value in the model that the fit started from.
        std_error, ci_low, ci_high: Of the bootstrap, at 95 %; None where it was not fitted.
        inflation: Times that the variance is larger because other columns move with its own; None: not fitted.
        with_name: The column that it moves with most.
        kept: Why it was not fitted and its value is the one before; empty where it was.
    """

    name: str
    value: float
    before: float
    std_error: float | None
    ci_low: float | None
    ci_high: float | None
    inflation: float | None
    with_name: str
    kept: str


@dataclass(frozen=True, slots=True)
class Quality:
    """How well energies of batches are predicted.

    Attributes:
        r_squared: Part of the variance of the batches' energy.
        median_error, p90_error, worst_error: Of the absolute relative errors by batch.
        worst: Index of the batch with the largest.
    """

    r_squared: float
    median_error: float
    p90_error: float
    worst_error: float
    worst: int


@dataclass(frozen=True, slots=True)
class Fit:
    """A fitted energy model.

    Attributes:
        model: It, named and with its provenance; other keys are those of the model that the fit started from.
        parameters: Fitted ones and those kept.
        batches: Batches it rests on.
        fitted, held_out, before: Quality on these batches, on held-out ones, and of the model before.
    """

    model: EnergyModel
    parameters: tuple[Parameter, ...]
    batches: int
    fitted: Quality
    held_out: Quality
    before: Quality


def fit(deeds: Deeds, start: EnergyModel, before_j: Floats, *, name: str, seed: int = 0) -> Fit:
    """Fits the parameters of an energy model.

    Args:
        deeds: What batches did.
        start: The model whose host, step times and PUE are taken over.
        before_j: (n,) Joules, host in, that it predicts for these batches.
        name: Name of the fitted model.
        seed: Of the bootstrap and the folds.

    Raises:
        ValueError: Too few batches, or nothing that can be fitted.
    """
    n = deeds.measured_j.size
    known = np.array([_known(start, parameter) for parameter in deeds.names])
    scaled = deeds.columns / deeds.measured_j[:, None]
    free, kept = _free(scaled, deeds.names)
    if n < max(10, 3 * len(free)):
        raise ValueError(f"{n:,} batches with usable measured energy: a fit takes at least {max(10, 3 * len(free))}")
    rest = deeds.host_j + deeds.columns @ np.where(_mask(free, known.size), 0.0, known)
    target = 1 - rest / deeds.measured_j
    rng = np.random.default_rng([seed, 0xF17])
    x = scaled[:, free]
    best = _nnls(x.T @ x, x.T @ target)
    draws = _bootstrap(x, target, rng)
    values = known.copy()
    values[free] = best
    inflation, partner = _collinear(x)
    parameters = []
    for i, parameter in enumerate(deeds.names):
        if i not in free:
            parameters.append(
                Parameter(parameter, float(known[i]), float(known[i]), None, None, None, None, "", kept[i])
            )
            continue
        j = free.index(i)
        low, high = np.quantile(draws[:, j], [0.025, 0.975])
        other = OF[deeds.names[free[partner[j]]]] if partner[j] >= 0 else ""
        parameters.append(
            Parameter(
                parameter, float(best[j]), float(known[i]), float(draws[:, j].std(ddof=1)), float(low), float(high),
                float(inflation[j]), other, "",
            )
        )  # fmt: skip
    return Fit(
        model=_model(start, dict(zip(deeds.names, values.tolist(), strict=True)), name, n),
        parameters=tuple(parameters),
        batches=n,
        fitted=_quality(deeds.measured_j, rest + deeds.columns[:, free] @ best),
        held_out=_quality(deeds.measured_j, rest + deeds.measured_j * _held_out(x, target, rng)),
        before=_quality(deeds.measured_j, before_j),
    )


def _term(name: str, host_per_prefill: float) -> Term:
    """The game whose worth is what a parameter of 1 costs."""
    from attribution.game import Game

    prefill = 1 + host_per_prefill
    terms: Mapping[str, Term] = {
        "e_tok_j": Own(output_j=1.0),
        "e0_j": Steps(base=1.0),
        "prefill_j_per_token": Game({"own": Own(prompt_j=prefill), "shared": Prefix(prefill, 0.0)}),
        "prefill_j_per_token2": Game({"own": Own(prompt_j2=prefill), "shared": Prefix(0.0, prefill)}),
        "kv_j_per_token_step": Own(context_j=1.0),
        "longest_j_per_token": Maximum(1.0, "output"),
        "span_j_per_step": Span(1.0),
        "fixed_j": Fixed(1.0),
    }
    return terms[name]


def _known(start: EnergyModel, parameter: str) -> float:
    return float(getattr(start, parameter))


def _mask(chosen: Sequence[int], n: int) -> NDArray[np.bool_]:
    mask = np.zeros(n, dtype=bool)
    mask[list(chosen)] = True
    return mask


def _free(scaled: Floats, names: Sequence[str]) -> tuple[list[int], dict[int, str]]:
    """Columns that can be told apart from those before them, and why the others cannot."""
    free: list[int] = []
    kept: dict[int, str] = {}
    basis = np.empty((scaled.shape[0], 0))
    for i, name in enumerate(names):
        column = scaled[:, i]
        size = float(np.linalg.norm(column))
        if size == 0:
            kept[i] = f"no batch has {OF[name]}"
            continue
        left = column / size
        for _ in range(2):  # twice, for what rounding leaves the first time
            left = left - basis @ (basis.T @ left)
        if float(np.linalg.norm(left)) < ALIKE:
            alike = " and ".join(OF[names[j]] for j in free)
            kept[i] = f"{OF[name]} follow from {alike} in every batch, so that it cannot be told apart"
            continue
        free.append(i)
        basis = np.column_stack([basis, left / np.linalg.norm(left)])
    return free, kept


def _nnls(gram: Floats, moment: Floats) -> Floats:
    """The least squares with no negative coefficient, from X'X and X'y."""
    from scipy.optimize import nnls

    scale = np.sqrt(np.diag(gram))
    scale = np.where(scale > 0, scale, 1.0)
    values, vectors = np.linalg.eigh(gram / np.outer(scale, scale))
    root = np.sqrt(np.maximum(values, 1e-15 * values[-1]))
    coefficients: Floats = nnls((vectors * root).T, (vectors.T @ (moment / scale)) / root)[0]
    return coefficients / scale


def _sums(x: Floats, y: Floats, group: Ints, groups: int) -> tuple[Floats, Floats]:
    """X'X and X'y of every group of batches."""
    p = x.shape[1]
    grams = np.empty((groups, p, p))
    moments = np.empty((groups, p))
    for i in range(p):
        moments[:, i] = np.bincount(group, x[:, i] * y, minlength=groups)
        for j in range(i, p):
            grams[:, i, j] = grams[:, j, i] = np.bincount(group, x[:, i] * x[:, j], minlength=groups)
    return grams, moments


def _bootstrap(x: Floats, y: Floats, rng: np.random.Generator) -> Floats:
    """(DRAWS, p) Coefficients of resampled groups of batches."""
    groups = min(GROUPS, y.size)
    grams, moments = _sums(x, y, rng.permutation(y.size) % groups, groups)
    counts = rng.multinomial(groups, np.full(groups, 1 / groups), size=DRAWS).astype(np.float64)
    return np.array([_nnls(np.tensordot(c, grams, 1), c @ moments) for c in counts])


def _held_out(x: Floats, y: Floats, rng: np.random.Generator) -> Floats:
    """(n,) Each batch's prediction by the fit of the other folds."""
    fold = rng.permutation(y.size) % FOLDS
    grams, moments = _sums(x, y, fold, FOLDS)
    predicted = np.empty(y.size)
    for k in range(FOLDS):
        mine = fold == k
        predicted[mine] = x[mine] @ _nnls(grams.sum(axis=0) - grams[k], moments.sum(axis=0) - moments[k])
    return predicted


def _collinear(x: Floats) -> tuple[Floats, Ints]:
    """How often its variance without the other columns each coefficient's is, and the column it moves with most."""
    p = x.shape[1]
    unit = x / np.linalg.norm(x, axis=0)
    inverse = np.linalg.pinv(unit.T @ unit)
    size = np.sqrt(np.maximum(np.diag(inverse), 1e-300))
    partial = np.abs(inverse / np.outer(size, size))
    np.fill_diagonal(partial, -1.0)
    return np.diag(inverse), partial.argmax(axis=1) if p > 1 else np.full(p, -1)


def _quality(measured: Floats, predicted: Floats) -> Quality:
    error = np.abs(predicted / measured - 1)
    spread = float(((measured - measured.mean()) ** 2).sum())
    worst = int(error.argmax())
    return Quality(
        r_squared=1 - float(((measured - predicted) ** 2).sum()) / spread if spread > 0 else float("nan"),
        median_error=float(np.median(error)),
        p90_error=float(np.quantile(error, 0.9)),
        worst_error=float(error[worst]),
        worst=worst,
    )


def _model(start: EnergyModel, values: Mapping[str, float], name: str, batches: int) -> EnergyModel:
    source = (
        f"Fitted by non-negative least squares of relative errors to the measured facility energy of {batches:,} "
        f"batches. Host power, step times, idle power and PUE are those of {start.name}."
    )
    changed: dict[str, Any] = {key: float(f"{value:.6g}") for key, value in values.items()}
    return replace(start, name=name, source=source, step_table={}, **changed)
