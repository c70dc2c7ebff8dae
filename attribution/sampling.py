"""Shapley shares of games without a closed form, sampled batch by batch, each with its standard error."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from attribution.batches import Batches, resolve
from attribution.controls import Control, controls_of
from attribution.game import Game
from attribution.model import JOULES_PER_WH, EnergyModel
from attribution.permutations import FEWEST, Estimate, Suggest, estimate
from attribution.shapley import Shares, attribute
from attribution.stays import Floats, Ints, Stays
from attribution.terms.base import Masks

BatchGame = Callable[[Mapping[str, NDArray[Any]], Masks], ArrayLike]

SAMPLES = 200
CAP = 12_800


@dataclass(frozen=True, slots=True)
class Sampled:
    """Shares of a sampled game; arrays are (rows,) as in the log.

    Attributes:
        shares: As ``attribute`` gives them; the one component is ``game``.
        std_error_wh: Standard error of ``shares.wh``, on the same scale; 0 where exact, NaN where unattributed.
        samples: Orders drawn for the row's batch; 0 where all its coalitions were counted out or it is unattributed.
        lopsided: Whether few requests carry the row's batch: its middle request has less than a third of the mean
            share, so that errors small beside the mean are large beside most shares.
        reached: Whether the mean standard error of the row's batch came below the tolerance.
        n_sampled, n_exact, n_lopsided, n_unreached: Batches.
        evaluations: Coalitions whose worth was asked for.
        relative_error: Largest, over batches, of the mean standard error over the mean share.
    """

    shares: Shares
    std_error_wh: Floats
    samples: Ints
    lopsided: NDArray[np.bool_]
    reached: NDArray[np.bool_]
    n_sampled: int
    n_exact: int
    n_lopsided: int
    n_unreached: int
    evaluations: int
    relative_error: float

    @property
    def methods(self) -> NDArray[np.str_]:
        """(rows,) Name of how each row's share was found; empty where unattributed."""
        kinds, which = np.unique(self.samples, return_inverse=True)
        named = np.array([method_name(k) for k in kinds.tolist()])[which]
        return np.where(self.shares.batch_size > 0, named, "")


def method_name(samples: int) -> str:
    """``shapley_exact``, or ``shapley_truncated_K…`` with the number of orders drawn."""
    return f"shapley_truncated_K{samples}" if samples else "shapley_exact"


def for_model(game: Callable[..., ArrayLike], model: EnergyModel) -> BatchGame:
    """The game as ``attribute_sampled`` calls it: one that takes ``energy_model`` by name is given it.

    Args:
        game: ``game(batch, coalitions)`` or ``game(batch, coalitions, *, energy_model)``.
        model: The energy model of the run.
    """
    return partial(game, energy_model=model) if "energy_model" in inspect.signature(game).parameters else game


def attribute_sampled(
    batches: Batches,
    game: BatchGame,
    *,
    samples: int = SAMPLES,
    tolerance: float = 0.02,
    cap: int = CAP,
    seed: int = 0,
    columns: Mapping[str, ArrayLike] | None = None,
    leave_one_out: bool = False,
    concurrency: bool = False,
) -> Sampled:
    """Shares the energy of every batch among its requests by a game that is known only by asking it.

    Batches so small that all coalitions are no more than what would be drawn are counted out, exactly. Chance depends
    on ``seed`` and the batch's id alone, and falls to its rows in the order of the log.

    Args:
        batches: The requests, whole batches of them.
        game: ``game(batch, coalitions)`` gives (k,) joules at the facility of coalitions (k, n) of one batch.
            ``batch`` has ``prompt_tokens``, ``output_tokens``, ``start_step``, ``end_step`` and the given ``columns``,
            each (n,), rows in the order of the log. Nobody costs nothing.
        samples: Orders drawn at first, at least 40.
        tolerance: Doubles them until the mean standard error of the batch's shares is at most this part of their mean,
        cap: or so many orders are drawn.
        seed: Same seed, same bytes.
        columns: More columns of the log for the game, (rows,) each.
        leave_one_out: Also give the leave-one-out values.
        concurrency: Also give how many requests were active beside each.

    Raises:
        ValueError: An argument that cannot be, or a game that gives no such joules; the batch is named.
    """
    _check(samples, tolerance, cap)
    stays = resolve(batches)
    extra = {name: np.asarray(column)[stays.rows] for name, column in (columns or {}).items()}
    order, edges = stays.grouped
    ids = np.asarray(batches.batch)
    found: list[Estimate] = []
    for batch in range(stays.n_batches):
        mine = order[edges[batch] : edges[batch + 1]]
        view = _view(stays, mine) | {name: column[mine] for name, column in extra.items()}
        name = ids[stays.rows[mine[0]]]
        try:
            found.append(_one(game, view, samples, tolerance, cap, _chance(seed, name)))
        except ValueError as error:
            raise ValueError(f"batch {name}: {error}") from None
    return _put_together(batches, stays, found, leave_one_out=leave_one_out, concurrency=concurrency)


def _check(samples: int, tolerance: float, cap: int) -> None:
    if samples < FEWEST:
        raise ValueError(f"samples: expected at least {FEWEST}, got {samples}")
    if not tolerance > 0:
        raise ValueError(f"tolerance: expected a number above 0, got {tolerance}")
    if cap < samples:
        raise ValueError(f"cap: expected at least samples ({samples}), got {cap}")


def _view(stays: Stays, mine: Ints) -> dict[str, NDArray[Any]]:
    """The columns of one batch."""
    return {
        "prompt_tokens": stays.prompt[mine].astype(np.int64),
        "output_tokens": stays.output[mine].astype(np.int64),
        "start_step": stays.start[mine],
        "end_step": stays.end[mine],
    }


def _chance(seed: int, batch: object) -> np.random.Generator:
    """A generator of its own for every batch; 7, 7.0 and "7" are the same id."""
    if isinstance(batch, (float, np.floating)) and float(batch).is_integer():
        batch = int(batch)
    key = hashlib.sha256(str(batch).encode()).digest()
    return np.random.default_rng([seed, int.from_bytes(key[:8], "big")])


def suggested(batch: Mapping[str, NDArray[Any]]) -> Suggest:
    """Control games for a batch, from its columns and from each request's worth alone."""
    start, end = (batch[name].astype(np.float64) for name in ("start_step", "end_step"))
    prompt, output = (batch[name].astype(np.float64) for name in ("prompt_tokens", "output_tokens"))

    def suggest(alone: Floats, marginal: Floats) -> list[Control]:
        amounts = {
            "output": output,
            "prompt": prompt,
            "tokens": prompt + output,
            "end": end - start.min(),
            "before": start.max() - start,
            "alone": np.maximum(alone, 0.0),
        }
        return controls_of(start.size, amounts, start, end)

    return suggest


def _one(
    game: BatchGame,
    view: Mapping[str, NDArray[Any]],
    samples: int,
    tolerance: float,
    cap: int,
    rng: np.random.Generator,
) -> Estimate:
    def worth(masks: Masks) -> Floats:
        return game(view, masks)  # type: ignore[return-value]  # checked where it is asked

    return estimate(
        worth, view["start_step"].size, suggested(view), samples=samples, tolerance=tolerance, cap=cap, rng=rng
    )


@dataclass(frozen=True, slots=True)
class _Found:
    """Shares that are there already, as a term of a game."""

    joules: Floats
    total: Floats
    saved: Floats

    def shares(self, stays: Stays) -> Floats:
        return self.joules

    def totals(self, stays: Stays) -> Floats:
        return self.total

    def marginals(self, stays: Stays) -> Floats:
        return self.saved

    def worth(self, stays: Stays, coalitions: Masks) -> Floats:
        raise NotImplementedError("the sampled game is asked where it is sampled")


def _put_together(
    batches: Batches, stays: Stays, found: list[Estimate], *, leave_one_out: bool, concurrency: bool
) -> Sampled:
    order, _ = stays.grouped

    def by_row(parts: list[Floats]) -> Floats:
        values = np.zeros(stays.batch.size)
        values[order] = np.concatenate(parts) if parts else np.zeros(0)
        return values

    term = _Found(
        joules=by_row([e.shares for e in found]),
        total=np.array([e.total for e in found]),
        saved=by_row([e.marginal for e in found]),
    )
    shares = attribute(batches, Game({"game": term}), leave_one_out=leave_one_out, concurrency=concurrency)
    rows = shares.wh.size
    modelled = shares.modelled_wh[stays.rows]
    batch_modelled = term.total / JOULES_PER_WH
    scale = np.divide(
        shares.batch_wh[stays.rows], batch_modelled[stays.batch], out=np.ones(modelled.size),
        where=batch_modelled[stays.batch] > 0,
    )  # fmt: skip
    error = np.full(rows, np.nan)
    error[stays.rows] = by_row([e.std_error for e in found]) / JOULES_PER_WH * scale
    samples = np.zeros(rows, dtype=np.int64)
    samples[stays.rows] = np.array([e.orders for e in found], dtype=np.int64)[stays.batch]
    reached, lopsided = np.zeros(rows, dtype=bool), np.zeros(rows, dtype=bool)
    reached[stays.rows] = np.array([e.reached for e in found], dtype=bool)[stays.batch]
    uneven = np.array([_lopsided(e) for e in found], dtype=bool)
    lopsided[stays.rows] = uneven[stays.batch]
    return Sampled(
        shares=shares,
        std_error_wh=error,
        samples=samples,
        lopsided=lopsided,
        reached=reached,
        n_sampled=sum(e.orders > 0 for e in found),
        n_exact=sum(e.orders == 0 for e in found),
        n_lopsided=int(uneven.sum()),
        n_unreached=sum(not e.reached for e in found),
        evaluations=sum(e.evaluations for e in found),
        relative_error=max((e.relative_error for e in found), default=0.0),
    )


def _lopsided(found: Estimate) -> bool:
    """Whether the middle request has less than a third of the mean share.

    Few long requests among many short ones then carry the batch, and an error that is small beside the mean share is
    not so beside most of the shares.
    """
    return bool(np.median(found.shares) * 3 < found.shares.mean())
