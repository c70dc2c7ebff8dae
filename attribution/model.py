"""Energy models: how many joules a batch of LLM requests takes.

A replica (``gpus`` GPUs that hold one copy of the weights) draws, per decode step with ``n`` active requests,

    h(n) = e0_j + e_tok_j * n        joules on its GPUs

``e0_j`` is what the step costs however many requests share it (reading the weights); ``e_tok_j`` is what each
decoded token adds. ``step_table`` stands in their place where h is no straight line, as with mixtures of experts.
A prompt of ``p`` tokens costs ``prefill_j_per_token * p + prefill_j_per_token2 * p**2`` joules; tokens that prompts of
a batch share are computed once. Optional: ``kv_j_per_token_step`` for each token of context in each step,
``longest_j_per_token`` for each token of the batch's longest output, ``span_j_per_step`` from a batch's first step to
its last, pauses included, and ``fixed_j`` a batch.
All of these are GPU board energy of the whole replica, as NVML meters it: neither host nor cooling is in them.

The host (CPU, memory, network, fans) draws ``host_w`` watts per GPU while the replica works. A step lasts
``step_base_ms + step_per_request_ms * n`` milliseconds, and prefill lasts its joules over ``prefill_w * gpus``.

    facility Wh = (GPU joules + host joules) / 3600 * pue

Idle power (``idle_w`` per GPU) belongs to no request and is in no share; it is kept for whoever states it apart.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

JOULES_PER_WH = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class EnergyModel:
    """Parameters of one served model on one kind of GPU; see the module for how they make up the energy.

    Attributes:
        name: Short name, e.g. ``h100_dense_8b``.
        source: Where the numbers come from: measurement, publication or estimate.
        gpu: The GPU they hold for.
        e0_j: GPU joules per decode step, shared by the requests active in it.
        e_tok_j: GPU joules per decoded token, the request's own.
        step_table: Active requests → GPU joules per decode step, instead of ``e0_j`` and ``e_tok_j``: straight lines
            between its counts, the nearest line going on beyond them. Empty: there is none.
        prefill_j_per_token: GPU joules per prompt token, the request's own.
        prefill_j_per_token2: GPU joules per squared prompt token (attention), the request's own.
        kv_j_per_token_step: GPU joules per token of context and decode step (keys and values read), its own.
        longest_j_per_token: GPU joules per output token of the batch's longest request (padded static batches).
        span_j_per_step: GPU joules per step from the batch's first start to its last end, active or not.
        fixed_j: GPU joules per batch, shared by its requests.
        pue: Power usage effectiveness of the site, facility energy over IT energy, at least 1.
        gpus: GPUs in the replica.
        step_base_ms, step_per_request_ms: Length of a decode step: base, and per active request.
        host_w: Host watts per GPU while the replica works.
        prefill_w: Watts per GPU during prefill; turns prefill joules into seconds.
        idle_w: Watts per GPU when nothing runs; informative, in no share.

    Raises:
        ValueError: A field has the wrong type or an impossible value, with every such field named.
    """

    name: str
    source: str
    gpu: str
    e0_j: float = 0.0
    e_tok_j: float = 0.0
    step_table: Mapping[int, float] = field(default_factory=dict)
    prefill_j_per_token: float
    pue: float
    prefill_j_per_token2: float = 0.0
    kv_j_per_token_step: float = 0.0
    longest_j_per_token: float = 0.0
    span_j_per_step: float = 0.0
    fixed_j: float = 0.0
    gpus: int = 1
    step_base_ms: float = 0.0
    step_per_request_ms: float = 0.0
    host_w: float = 0.0
    prefill_w: float = 0.0
    idle_w: float = 0.0

    def __post_init__(self) -> None:
        problems = [f"{f.name}: {fault}" for f in fields(self) if (fault := _fault(f.name, getattr(self, f.name)))]
        if not problems and self.host_w > 0 and self.step_base_ms == 0:
            problems.append("host_w: needs step_base_ms, the length of a decode step, to become energy")
        if not problems and self.host_w > 0 and self.prefill_w == 0 and self.prefill_j_per_token > 0:
            problems.append("host_w: needs prefill_w, the GPU's watts during prefill, to become energy")
        if not problems and self.step_table and (self.e0_j or self.e_tok_j):
            problems.append(_TWO_FORMS)
        if problems:
            raise ValueError("; ".join(problems))

    @property
    def sha256(self) -> str:
        """Hash of the content (hex): equal for equal parameters, however the file was laid out.

        Optional keys that are zero are not in it, so that a key that a model does not use does not change its hash.
        """
        content: dict[str, object] = {}
        for key, needed in _KEYS.items():
            value = getattr(self, key)
            if key == "step_table":
                value = [[int(n), float(joules)] for n, joules in value.items()]
            elif key not in _TEXT:
                value = float(value)
            if needed or value:
                content[key] = value
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    @property
    def host_j_per_step(self) -> float:
        """Host joules per decode step, shared by the requests active in it."""
        return self.host_w * self.gpus * self.step_base_ms / 1000

    @property
    def host_j_per_request_step(self) -> float:
        """Host joules that one more active request adds to a decode step."""
        return self.host_w * self.gpus * self.step_per_request_ms / 1000

    def prefill_j(self, prompt_tokens: NDArray[np.float64]) -> NDArray[np.float64]:
        """GPU joules to prefill prompts of ``prompt_tokens`` tokens, elementwise."""
        return prompt_tokens * (self.prefill_j_per_token + self.prefill_j_per_token2 * prompt_tokens)

    @property
    def host_per_prefill(self) -> float:
        """Host joules per GPU joule of prefill: ``host_w`` for as long as prefill lasts."""
        return self.host_w / self.prefill_w if self.prefill_w else 0.0

    def prefill_host_j(self, prompt_tokens: NDArray[np.float64]) -> NDArray[np.float64]:
        """Host joules while such prompts are prefilled, elementwise."""
        return self.prefill_j(prompt_tokens) * self.host_per_prefill


_KEYS = {f.name: f.default is MISSING and f.default_factory is MISSING for f in fields(EnergyModel)}
_TEXT = frozenset({"name", "source", "gpu"})
_DECODE = ("e0_j", "e_tok_j")
_TWO_FORMS = "step_table: stands in place of e0_j and e_tok_j; give one or the other"


def load_model(content: str | Mapping[str, object]) -> EnergyModel:
    """Reads an energy model from YAML text, or from a mapping already parsed.

    Args:
        content: A flat mapping whose keys are the fields of ``EnergyModel``; ``step_table`` is a mapping
            ``{8: 91.0, 16: 100.7}``. Numbers may be written ``3.1e-7`` or ``1e-3``. ``e0_j`` and ``e_tok_j`` are
            needed unless there is a ``step_table``.

    Raises:
        ValueError: Not such a mapping; an unknown, doubled or missing key; a value that is no number or is
            impossible. The message names all of them and is meant for the person who wrote the file.
    """
    given = _parse(content) if isinstance(content, str) else dict(content)
    problems = [_unknown(key) for key in given if key not in _KEYS]
    needed = [key for key, always in _KEYS.items() if always or (key in _DECODE and "step_table" not in given)]
    problems += [f"{key}: missing" for key in needed if key not in given]
    if "step_table" in given and any(key in given for key in _DECODE):
        problems.append(_TWO_FORMS)
    values: dict[str, object] = {}
    for key in _KEYS:
        if key in given:
            values[key] = _value(key, given[key])
            fault = _fault(key, values[key])
            problems += [f"{key}: {fault}"] if fault else []
    if problems:
        raise ValueError("; ".join(problems))
    return EnergyModel(**values)  # type: ignore[arg-type]  # every value was checked above


def _parse(text: str) -> dict[str, object]:
    """YAML mapping of scalars, and of mappings of scalars, as text."""
    import yaml

    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise ValueError(f"not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(node, yaml.MappingNode):
        raise ValueError("expected a mapping such as 'e0_j: 3.16', one line a key")
    return _mapping(node, yaml.MappingNode)


def _mapping(node: Any, kind: type) -> dict[str, object]:
    """The node tree is read, so that doubled keys are seen."""
    found: dict[str, object] = {}
    for key, value in node.value:
        line, nested = key.start_mark.line + 1, key.value == "step_table" and isinstance(value, kind)
        if not isinstance(key.value, str) or not (nested or isinstance(value.value, str)):
            raise ValueError(f"line {line}: expected one key and one plain value")
        if key.value in found:
            raise ValueError(f"line {line}: key {key.value!r} stands twice")
        found[key.value] = _mapping(value, kind) if nested else value.value
    return found


def _unknown(key: object) -> str:
    near = difflib.get_close_matches(str(key), _KEYS, n=1)
    return f"{key!r}: unknown key" + (f"; did you mean {near[0]!r}?" if near else "")


def _value(key: str, value: object) -> object:
    """Turns what a file says into what the field holds, as far as it can be."""
    if key in _TEXT:
        return value
    if key == "step_table":
        if not isinstance(value, Mapping):
            return value
        table = [(_number(n, whole=True), _number(joules, whole=False)) for n, joules in value.items()]
        if len({str(n) for n, _ in table}) < len(table) or not table:
            return tuple(value)  # what the keys are, for ``_fault`` to name
        return dict(sorted(table, key=lambda row: row[0] if isinstance(row[0], int) else 0))
    return _number(value, whole=key == "gpus")


def _number(value: object, *, whole: bool) -> object:
    """Turns a number written as text into one; anything else is left for ``_fault`` to name."""
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        return value
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return value
    return int(number) if whole and number.is_integer() else number


def _fault(key: str, value: object) -> str:
    """What is wrong with one field's value; empty when nothing is."""
    if key == "step_table":
        return _table_fault(value)
    if key in _TEXT:
        return "" if isinstance(value, str) and value.strip() else f"expected text, got {value!r}"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return f"expected a number, got {value!r}"
    if key == "gpus":
        return "" if isinstance(value, int) and value >= 1 else f"expected a whole number of at least 1, got {value!r}"
    least = 1 if key == "pue" else 0
    return "" if math.isfinite(value) and value >= least else f"expected a number of at least {least}, got {value!r}"


def _table_fault(value: object) -> str:
    if isinstance(value, tuple) and value:
        return f"expected each number of active requests once, got {', '.join(map(str, value))}"
    if not isinstance(value, Mapping):
        return f"expected joules by active requests, such as {{8: 91.0, 16: 100.7}}, got {value!r}"
    for n, joules in value.items():
        if isinstance(n, bool) or not isinstance(n, int) or n < 1:
            return f"expected whole numbers of active requests of at least 1, got {n!r}"
        if isinstance(joules, bool) or not isinstance(joules, (int, float)):
            return f"{n}: expected joules, got {joules!r}"
    from attribution.terms.steps import table_fault

    return table_fault(tuple(value), tuple(value.values())) if value else ""
