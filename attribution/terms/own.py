"""What a request costs by itself, whoever else is there: its share is that cost (dummy and additivity)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from attribution.stays import Stays
from attribution.terms.base import Floats, Masks, one_batch, whole


@dataclass(frozen=True, slots=True)
class Own:
    """Joules of one request that no batch mate changes.

    Where the log says which prompt tokens are shared, ``prompt_j`` and ``prompt_j2`` count the others only; the
    shared ones are ``Prefix``'s.

    Attributes:
        output_j: Per output token.
        prompt_j: Per prompt token.
        prompt_j2: Per squared prompt token: attention over a prompt of p tokens takes a multiple of p².
        step_j: Per decode step in which it is active.
        context_j: Per token of context and step: keys and values read. In a step the context is the prompt and what
            has been generated before; output comes evenly over the steps.
    """

    output_j: float = 0.0
    prompt_j: float = 0.0
    prompt_j2: float = 0.0
    step_j: float = 0.0
    context_j: float = 0.0

    def shares(self, stays: Stays) -> Floats:
        """(m,) The request's own joules."""
        joules: Floats = self.output_j * stays.output
        if self.prompt_j or self.prompt_j2:
            tokens, squares = stays.prompt, stays.prompt**2
            if stays.pieces is not None:
                tokens, squares = tokens - stays.shared[0], squares - stays.shared[1]
            joules += self.prompt_j * tokens + self.prompt_j2 * squares
        if self.step_j:
            joules += self.step_j * stays.steps
        if self.context_j:
            steps = stays.steps
            joules += self.context_j * (steps * stays.prompt + stays.output * (steps - 1).clip(0) / 2)
        return joules

    def totals(self, stays: Stays) -> Floats:
        """(n_batches,) Their sums."""
        return whole(stays, self.shares(stays))

    def marginals(self, stays: Stays) -> Floats:
        """(m,) Without it, its own joules are saved."""
        return self.shares(stays)

    def worth(self, stays: Stays, coalitions: Masks) -> Floats:
        """(k,) Token by token and step by step."""
        masks = one_batch(stays, coalitions)
        joules = np.array([self._one(stays, i) for i in range(stays.batch.size)])
        worth: Floats = masks.astype(np.float64) @ joules
        return worth

    def _one(self, stays: Stays, i: int) -> float:
        prompt, output, steps = int(stays.prompt[i]), int(stays.output[i]), int(stays.end[i] - stays.start[i])
        own = [(0.0, float(prompt))]  # the stretches of the prompt that nobody shares
        if stays.pieces is not None:
            use = stays.pieces.row == i
            for low, high in sorted(zip(stays.pieces.start[use], stays.pieces.end[use], strict=True)):
                begin, end = own.pop()
                own += [(begin, low), (high, end)]
        read = sum(prompt + output * step / steps for step in range(steps)) if self.context_j else 0.0
        prefill = sum(self.prompt_j * (high - low) + self.prompt_j2 * (high**2 - low**2) for low, high in own)
        return self.output_j * output + prefill + self.step_j * steps + self.context_j * read
