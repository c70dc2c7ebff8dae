"""Energy of batched LLM requests, shared out by Shapley value: arrays of batches in, shares out.

model = load_model(text)                                   # an EnergyModel, from YAML
shares = attribute(Batches(batch, prompt_tokens, output_tokens, start_step, end_step), model)
shares.wh, by_label(shares, arm)

game = Game({"decode": Steps(3.16), "padding": Padded(0.4)})  # or a game of one's own, of terms in attribution.terms
attribute(batches, game)
stays = resolve(batches).only(0)                              # one batch: what its coalitions would cost
game.worth(stays, coalitions)
"""

from __future__ import annotations

from attribution.batches import Batches, resolve
from attribution.game import Game
from attribution.model import EnergyModel, load_model
from attribution.pieces import Blocks
from attribution.shapley import Measured, Shares, attribute, carbon_g
from attribution.stays import Stays
from attribution.totals import LabelTotals, by_label

__all__ = [
    "Batches",
    "Blocks",
    "EnergyModel",
    "Game",
    "LabelTotals",
    "Measured",
    "Shares",
    "Stays",
    "attribute",
    "by_label",
    "carbon_g",
    "load_model",
    "resolve",
]
