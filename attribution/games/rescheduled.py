"""What a coalition would have cost had its requests been scheduled by themselves.

With fewer requests a queue is shorter, so that requests start earlier and run together with others than they did: the
steps of a request depend on who is there, and no closed form is known. Requests are admitted in the order in which
they were logged to start (first come, first served, nobody overtakes) on one replica that holds at most ``max_batch``
requests and ``max_tokens`` tokens of context; the energy of that schedule is the energy model's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attribution.game import Game
from attribution.model import EnergyModel
from attribution.stays import Floats, Ints, Stays

Masks = NDArray[np.bool_]


def rescheduled(
    batch: Mapping[str, NDArray[Any]],
    coalitions: Masks,
    *,
    energy_model: EnergyModel,
    max_batch: int = 16,
    max_tokens: int = 65_536,
) -> Floats:
    """(k,) Facility joules of each coalition, its requests scheduled anew.

    Args:
        batch: ``prompt_tokens``, ``output_tokens``, ``start_step``, ``end_step``, each (n,); a request runs for as
            many steps as in the log. ``arrival_step``, where there is one, is when it can start at the earliest, else
            its logged start.
        coalitions: (k, n) Who is there.
        energy_model: Energy of the schedule, PUE in.
        max_batch: Requests that run together at most, at least 1.
        max_tokens: Prompt and output tokens of the requests that run together, at most; a request that has more by
            itself runs alone.
    """
    arrival = np.asarray(batch["arrival_step" if "arrival_step" in batch else "start_step"], dtype=np.int64)
    steps = np.asarray(batch["end_step"], dtype=np.int64) - np.asarray(batch["start_step"], dtype=np.int64)
    prompt, output = (np.asarray(batch[name], dtype=np.float64) for name in ("prompt_tokens", "output_tokens"))
    masks = np.asarray(coalitions, dtype=bool)
    start = admissions(masks, arrival, steps, (prompt + output).astype(np.int64), max_batch, max_tokens)
    which, who = np.nonzero(masks)
    begin = start[which, who]
    first = np.full(len(masks), np.iinfo(np.int64).max)
    np.minimum.at(first, which, begin)
    begin = begin - first[which]
    stays = Stays(
        rows=np.arange(who.size),
        batch=which,
        n_batches=len(masks),
        prompt=prompt[who],
        output=output[who],
        start=begin,
        end=begin + steps[who],
        measured_wh=None,
        measured_invalid=0,
        unattributed={},
        incomplete_batches=0,
    )
    joules = Game.of(energy_model).totals(stays)
    return np.where(masks.any(axis=1), joules * energy_model.pue, 0.0)


def admissions(masks: Masks, arrival: Ints, steps: Ints, tokens: Ints, max_batch: int, max_tokens: int) -> Ints:
    """(k, n) First step of every member, first come, first served; others have an entry without meaning.

    The slots of a replica are kept sorted by when they fall free. A request waits for its arrival, for the request
    before it, for a slot, and until so many have ended that its tokens fit.
    """
    k, n = masks.shape
    start = np.zeros((k, n), dtype=np.int64)
    slots = min(max_batch, n)
    free = np.full((k, slots), np.iinfo(np.int64).min)
    held = np.zeros((k, slots), dtype=np.int64)
    clock = np.full(k, np.iinfo(np.int64).min)
    for i in np.lexsort((np.arange(n), arrival)).tolist():
        who = np.flatnonzero(masks[:, i])
        if not who.size:
            continue
        ends, tokens_held = free[who], held[who]
        left = tokens_held.sum(axis=1, keepdims=True) - np.cumsum(tokens_held, axis=1)  # once slot j has ended
        fits = left + tokens[i] <= max_tokens
        fits[:, -1] = True
        wait = ends[np.arange(who.size), np.argmax(fits, axis=1)]
        wait = np.where(left[:, 0] + tokens_held[:, 0] + tokens[i] <= max_tokens, ends[:, 0], wait)
        moment = np.maximum(np.maximum(clock[who], arrival[i]), wait)
        ended = ends <= moment[:, None]
        tokens_held[ended] = 0
        ends[:, 0], tokens_held[:, 0] = moment + steps[i], tokens[i]
        order = np.argsort(ends, axis=1, kind="stable")
        free[who] = np.take_along_axis(ends, order, axis=1)
        held[who] = np.take_along_axis(tokens_held, order, axis=1)
        start[who, i], clock[who] = moment, moment
    return start
