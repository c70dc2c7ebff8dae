"""Energy of batched LLM requests, shared out by Shapley value: arrays of batches in, shares out.

model = load_model(text)                                   # an EnergyModel, from YAML
shares = attribute(Batches(batch, prompt_tokens, output_tokens, start_step, end_step), model)
shares.wh, by_label(shares, arm)
"""

from __future__ import annotations

from attribution.batches import Batches
from attribution.model import EnergyModel, load_model
from attribution.shapley import Measured, Shares, attribute, carbon_g
from attribution.totals import LabelTotals, by_label

__all__ = [
    "Batches",
    "EnergyModel",
    "LabelTotals",
    "Measured",
    "Shares",
    "attribute",
    "by_label",
    "carbon_g",
    "load_model",
]
