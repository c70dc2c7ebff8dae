"""Shapley values by their definition, random batches, and a term of every kind."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from attribution.batches import Batches, resolve
from attribution.pieces import Blocks
from attribution.stays import Stays
from attribution.terms import (
    Fixed,
    Hinge,
    Maximum,
    Own,
    Padded,
    Prefix,
    Span,
    Square,
    StepHinge,
    Steps,
    StepTable,
    Term,
)

Floats = NDArray[np.float64]

TERMS: dict[str, Term] = {
    "own": Own(output_j=0.0665, prompt_j=0.02, prompt_j2=3.1e-7, step_j=0.0135, context_j=1.7e-5),
    "fixed": Fixed(812.5),
    "steps": Steps(base=3.16, slope=0.0665),
    "step_table": StepTable((2, 4, 5, 9), (5.5, 9.25, 9.0, 13.0)),
    "prefix": Prefix(0.02, 3.1e-7),
    "prefix_linear": Prefix(0.02),
    "longest_output": Maximum(0.37, "output"),
    "longest_prompt": Maximum(0.37, "prompt"),
    "makespan": Maximum(2.5, "end"),
    "padded": Padded(0.37, "output"),
    "span": Span(2.5),
    "square": Square(1e-3, "tokens"),
    "hinge_low": Hinge(0.02, 150.5, "prompt"),
    "hinge": Hinge(0.02, 4000.0, "prompt"),
    "step_hinge": StepHinge(0.3, 1500.5, "prompt"),
    "hinge_high": Hinge(0.5, 700.0, "output"),
}


def enumerated(worth: Floats, n: int) -> Floats:
    """Shapley value from the worth of all 2**n coalitions, coalition s holding request i where bit i of s is set."""
    member = (np.arange(2**n)[:, None] >> np.arange(n)) & 1
    size = member.sum(axis=1)
    weight = np.array([math.factorial(k) * math.factorial(n - 1 - k) / math.factorial(n) for k in range(n)])
    without = [np.flatnonzero(member[:, i] == 0) for i in range(n)]
    wide = worth.astype(np.longdouble)
    return np.array([float(weight[size[s]] @ (wide[s | (1 << i)] - wide[s])) for i, s in enumerate(without)])


def coalitions(n: int) -> NDArray[np.bool_]:
    return ((np.arange(2**n)[:, None] >> np.arange(n)) & 1).astype(bool)


def random_log(n: int, seed: int, kind: str) -> Batches:
    """One batch of n requests: ``static``, ``continuous``, ``sparse`` (often alone, with pauses) or ``ties``."""
    rng = np.random.default_rng([n, seed])
    prompt = rng.integers(0, 2000, n)
    output = np.minimum(rng.geometric(0.02, n), 400) - 1
    start = {
        "static": np.zeros(n, dtype=np.int64),
        "continuous": rng.integers(0, 120, n),
        "sparse": 40 * rng.integers(0, 120, n),
        "ties": rng.integers(0, 3, n),
    }[kind]
    if kind == "ties":
        prompt, output = prompt // 500 * 500, output // 60
    batch = np.zeros(n, dtype=np.int64)
    if seed % 2:
        prefix = rng.integers(-1, 3, n).astype(float)
        prefix[prefix < 0] = np.nan
        tokens = np.minimum(prompt, rng.choice([100, 300, 300, 900], n))
        return Batches(batch, prompt, output, start, start + output, prefix=prefix, prefix_tokens=tokens)
    return Batches(batch, prompt, output, start, start + output, blocks=random_blocks(rng, prompt, 128))


def random_blocks(rng: np.random.Generator, prompt: NDArray[np.int64], tokens: int) -> Blocks:
    """Prompts of a small tree of blocks: an id says which way was taken up to there."""
    counts = -(-prompt // tokens)
    ids = []
    for count in counts.tolist():
        path = 1
        for turn in rng.integers(0, 2, count).tolist():
            path = path * 2 + (turn if path < 32 else 0)
            ids.append(path)
    return Blocks(ids=np.array(ids, dtype=np.int64), offsets=np.concatenate([[0], np.cumsum(counts)]), tokens=tokens)


def random_stays(n: int, seed: int, kind: str) -> Stays:
    return resolve(random_log(n, seed, kind))
