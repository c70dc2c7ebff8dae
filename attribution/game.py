"""Energy games: sums of named terms, whose Shapley value is the sum of the terms' (additivity, Shapley 1953)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from attribution.model import EnergyModel
from attribution.stays import Stays
from attribution.terms import Fixed, Maximum, Own, Prefix, Span, Steps, StepTable, Term
from attribution.terms.base import Floats, Masks, one_batch


@dataclass(frozen=True, slots=True)
class Game:
    """What any coalition of a batch's requests would cost, in joules. A game is a term itself: games nest.

    Attributes:
        terms: Name → term.
    """

    terms: Mapping[str, Term]

    @classmethod
    def of(cls, model: EnergyModel) -> Game:
        """The game of an energy model: joules of GPUs and host, before PUE.

        ``decode_step``, ``decode_token``, ``prefill`` and ``host`` are always there, others where the model has them.
        """
        host = model.host_per_prefill
        table = model.step_table
        terms: dict[str, Term] = {
            "decode_step": StepTable(tuple(table), tuple(table.values())) if table else Steps(base=model.e0_j),
            "decode_token": Own(output_j=model.e_tok_j),
            "prefill": _prefill(model, 1.0),
            "host": Game(
                {
                    "step": Steps(base=model.host_j_per_step),
                    "own": Own(step_j=model.host_j_per_request_step),
                    "prefill": _prefill(model, host),
                }
            ),
        }
        if model.kv_j_per_token_step:
            terms["kv_read"] = Own(context_j=model.kv_j_per_token_step)
        if model.fixed_j:
            terms["fixed"] = Fixed(model.fixed_j)
        if model.span_j_per_step:
            terms["span"] = Span(model.span_j_per_step)
        if model.longest_j_per_token:
            terms["longest"] = Maximum(model.longest_j_per_token, "output")
        return cls(terms)

    def shares(self, stays: Stays) -> Floats:
        """(m,) Sum of the terms' shares."""
        return sum((term.shares(stays) for term in self.terms.values()), np.zeros(stays.batch.size))

    def totals(self, stays: Stays) -> Floats:
        """(n_batches,) Sum of the terms' totals."""
        return sum((term.totals(stays) for term in self.terms.values()), np.zeros(stays.n_batches))

    def marginals(self, stays: Stays) -> Floats:
        """(m,) Leave-one-out values; unlike shares they do not add up to the batch."""
        return sum((term.marginals(stays) for term in self.terms.values()), np.zeros(stays.batch.size))

    def worth(self, stays: Stays, coalitions: Masks) -> Floats:
        """(k,) Joules of each coalition (k, m) of one batch's requests."""
        masks = one_batch(stays, coalitions)
        return sum((term.worth(stays, masks) for term in self.terms.values()), np.zeros(len(masks)))

    def components(self, stays: Stays) -> Mapping[str, Floats]:
        """Name → (m,) shares of each term."""
        return {name: term.shares(stays) for name, term in self.terms.items()}


def _prefill(model: EnergyModel, factor: float) -> Term:
    """Prefill joules times a factor: each request's own prompt, and once a batch what prompts share."""
    linear, square = model.prefill_j_per_token * factor, model.prefill_j_per_token2 * factor
    return Game({"own": Own(prompt_j=linear, prompt_j2=square), "shared": Prefix(linear, square)})
