"""Energy models: how many joules a batch of LLM requests takes.

A replica (``gpus`` GPUs that hold one copy of the weights) draws, per decode step with ``n`` active requests,

    h(n) = e0_j + e_tok_j * n        joules on its GPUs

``e0_j`` is what the step costs however many requests share it (reading the weights); ``e_tok_j`` is what each
decoded token adds. A prompt of ``p`` tokens costs ``prefill_j_per_token * p + prefill_j_per_token2 * p**2`` joules.
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
from dataclasses import MISSING, asdict, dataclass, fields
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

JOULES_PER_WH = 3600.0


@dataclass(frozen=True, slots=True)
class EnergyModel:
    """Parameters of one served model on one kind of GPU; see the module for how they make up the energy.

    Attributes:
        name: Short name, e.g. ``h100_dense_8b``.
        source: Where the numbers come from: measurement, publication or estimate.
        gpu: The GPU they hold for.
        e0_j: GPU joules per decode step, shared by the requests active in it.
        e_tok_j: GPU joules per decoded token, the request's own.
        prefill_j_per_token: GPU joules per prompt token, the request's own.
        pue: Power usage effectiveness of the site, facility energy over IT energy, at least 1.
        prefill_j_per_token2: GPU joules per squared prompt token (attention), the request's own.
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
    e0_j: float
    e_tok_j: float
    prefill_j_per_token: float
    pue: float
    prefill_j_per_token2: float = 0.0
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
        if problems:
            raise ValueError("; ".join(problems))

    @property
    def sha256(self) -> str:
        """Hash of the content (hex): equal for equal parameters, however the file was laid out."""
        content = {key: value if isinstance(value, str) else float(value) for key, value in asdict(self).items()}
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

    def prefill_host_j(self, prompt_tokens: NDArray[np.float64]) -> NDArray[np.float64]:
        """Host joules while such prompts are prefilled, elementwise: ``host_w`` for as long as prefill lasts."""
        return self.prefill_j(prompt_tokens) * (self.host_w / self.prefill_w if self.prefill_w else 0.0)


_KEYS = {f.name: f.default is MISSING for f in fields(EnergyModel)}
_TEXT = frozenset({"name", "source", "gpu"})


def load_model(content: str | Mapping[str, object]) -> EnergyModel:
    """Reads an energy model from YAML text, or from a mapping already parsed.

    Args:
        content: A flat mapping whose keys are the fields of ``EnergyModel``. Numbers may be written ``3.1e-7``
            or ``1e-3``.

    Raises:
        ValueError: Not such a mapping; an unknown, doubled or missing key; a value that is no number or is
            impossible. The message names all of them and is meant for the person who wrote the file.
    """
    given = _parse(content) if isinstance(content, str) else dict(content)
    problems = [_unknown(key) for key in given if key not in _KEYS]
    problems += [f"{key}: missing" for key, needed in _KEYS.items() if needed and key not in given]
    values: dict[str, object] = {}
    for key in _KEYS:
        if key in given:
            values[key] = given[key] if key in _TEXT else _number(given[key], whole=key == "gpus")
            fault = _fault(key, values[key])
            problems += [f"{key}: {fault}"] if fault else []
    if problems:
        raise ValueError("; ".join(problems))
    return EnergyModel(**values)  # type: ignore[arg-type]  # every value was checked above


def _parse(text: str) -> dict[str, object]:
    """Flat YAML mapping of scalars, as text: the node tree is read, so doubled keys are seen."""
    import yaml

    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise ValueError(f"not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(node, yaml.MappingNode):
        raise ValueError("expected a mapping such as 'e0_j: 3.16', one line a key")
    found: dict[str, object] = {}
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode) or not isinstance(value, yaml.ScalarNode):
            raise ValueError(f"line {key.start_mark.line + 1}: expected one key and one plain value")
        if key.value in found:
            raise ValueError(f"line {key.start_mark.line + 1}: key {key.value!r} stands twice")
        found[key.value] = value.value
    return found


def _unknown(key: object) -> str:
    near = difflib.get_close_matches(str(key), _KEYS, n=1)
    return f"{key!r}: unknown key" + (f"; did you mean {near[0]!r}?" if near else "")


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
    if key in _TEXT:
        return "" if isinstance(value, str) and value.strip() else f"expected text, got {value!r}"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return f"expected a number, got {value!r}"
    if key == "gpus":
        return "" if isinstance(value, int) and value >= 1 else f"expected a whole number of at least 1, got {value!r}"
    least = 1 if key == "pue" else 0
    return "" if math.isfinite(value) and value >= least else f"expected a number of at least {least}, got {value!r}"
