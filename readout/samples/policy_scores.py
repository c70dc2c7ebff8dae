"""Two streaming passes that value a target policy without holding a row: reward models by sums, then scores by unit.

The weights of ``ips`` and ``snips`` need one pass. Chunks come in the order of the files, so that the same logs give
the same bytes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from estimators.doubly_robust import kept_weights
from estimators.penalised import Penalty
from estimators.reward_model import FittedRewards, LinearRewards
from estimators.weight_diagnostics import largest_of, tail_length
from readout.samples.policy_rows import Chunk, How, Matrix, Rows, places, read, shared
from readout.samples.policy_sums import ByAction, ByUnit, Side, Vector
from readout.samples.target import OTHER
from readout.terms import Term

# Rows of each unit on which the first term has a value.
SEEN = "@seen"
# What the bound of the first term's value is made of.
BOUND = "@bound "
# Constant policies that are valued beside the target.
MOST_CONSTANT = 100
# Independent rows whose sums are kept one by one for what stands beside the target.
MOST_ALONE = 1_000_000


@dataclass
class Scored:
    """What the passes found.

    Attributes:
        sums: By unit; names are those of the terms, see :mod:`policy_sums`.
        constants: Policies that always take one action, for the first term.
        by_action: What the constants are made of where they are kept by unit.
        trade: The target under another ``(clip | switch | none, at)``, for the first term.
        clipped: By the prefix of shared sums: rows whose weight was cut, and by how much.
        top: The largest weights, as given; ``total`` and ``squares`` are of all of them.
        largest: Largest weight of a row, as used.
        positive: Rows with a weight above 0.
        low, high: Ends of the first term's values; ``shares``: whether all of them are 0 or 1.
        quality: How much of the first term the models explain.
    """

    sums: ByUnit
    constants: dict[str, Side]
    trade: dict[tuple[str, float], Side]
    by_action: ByAction | None = None
    clipped: dict[str, tuple[float, float]] = field(default_factory=dict)
    top: Vector = field(default_factory=lambda: np.empty(0))
    total: float = 0.0
    squares: float = 0.0
    largest: float = 0.0
    positive: int = 0
    low: float = math.inf
    high: float = -math.inf
    shares: bool = True
    quality: Quality = field(default_factory=lambda: Quality())


def score(rows: Rows, how: How) -> Scored:
    """Scores of every term, and of what stands beside the first.

    Raises:
        EstimationError: The reward models cannot be fitted, or do not know an action that the target takes.
        LogError: The files cannot be read to the end.
    """
    models = _fit(rows, how) if how.models else None
    scored = empty(rows, how)
    for chunk in read(rows, how):
        add_chunk(scored, rows, how, chunk, None if models is None else Predicted.of(models, rows, how, chunk))
    return scored


def empty(rows: Rows, how: How) -> Scored:
    """Sums to which no row was added."""
    alone = rows.units is None and rows.n > MOST_ALONE
    listed = [name for name in rows.target.actions if name != OTHER][:MOST_CONSTANT]
    by_action = None if alone else ByAction(rows.n, listed)
    return Scored(
        ByUnit(rows.n),
        by_action.sides if by_action else {name: Side(None) for name in listed},
        {key: Side(None if alone else ByUnit(rows.n)) for key in _trades(how)},
        by_action,
    )


@dataclass(frozen=True, slots=True)
class Predicted:
    """What models say of a chunk.

    Attributes:
        direct, logged, felt: As in :class:`estimators.reward_model.Scores`.
        every: ``(n, actions, rewards)`` of the first term, for every action; None where it is not known.
    """

    direct: Matrix
    logged: Matrix
    felt: Matrix | None
    every: NDArray[np.float64] | None

    @classmethod
    def of(cls, fitted: FittedRewards, rows: Rows, how: How, chunk: Chunk) -> Predicted:
        """By linear models."""
        assert chunk.x is not None
        assert chunk.fold is not None
        assert chunk.policy is not None
        own = chunk.rewards if how.own_error else None
        found = fitted.scores(chunk.x, chunk.action, chunk.fold, chunk.policy, own)
        width = 1 if rows.terms[0].den is None else 2
        first = replace(fitted, coef=fitted.coef[..., :width], rows=fitted.rows[..., :width], through=None)
        return cls(found.direct, found.logged, found.fitted, first.predict(chunk.x, chunk.fold))

    def of_rows(self, some: NDArray[np.bool_]) -> Predicted:
        """What they say of some of the rows, but for every action."""
        if some.all():
            return self
        return Predicted(self.direct[some], self.logged[some], None, None)


@dataclass
class Quality:
    """How much of a reward's variance predictions explain, on a centre of the first chunk's."""

    n: int = 0
    centre: float = 0.0
    total: float = 0.0
    squares: float = 0.0
    missed: float = 0.0

    def add(self, reward: Vector, predicted: Vector) -> None:
        """Adds rows."""
        seen = np.isfinite(reward) & np.isfinite(predicted)
        r, miss = reward[seen], reward[seen] - predicted[seen]
        if not self.n and len(r):
            self.centre = float(r.mean())
        self.n += len(r)
        self.total += float((r - self.centre).sum())
        self.squares += float(((r - self.centre) ** 2).sum())
        self.missed += float(miss @ miss)

    @property
    def explained(self) -> float | None:
        """None where nothing was predicted, or nothing varies."""
        spread = self.squares - self.total**2 / self.n if self.n else 0.0
        return 1.0 - self.missed / spread if spread > 0.0 else None


def _trades(how: How) -> list[tuple[str, float]]:
    if not how.weighs:
        return []
    found = [("none", float("inf")), *(("clip", cap) for cap in how.caps)]
    return found + [("switch", cap) for cap in how.caps if how.method == "doubly_robust"]


def penalty_of(how: How) -> Penalty:
    """A penalty that is not light would bias a value that nothing corrects."""
    return "light" if how.method == "direct_method" else "cross_validated"


def _fit(rows: Rows, how: How) -> FittedRewards:
    return fitted(rows, how, read(rows, how))


def fitted(rows: Rows, how: How, chunks: Iterable[Chunk]) -> FittedRewards:
    """Linear models of every reward by action, from chunks of rows."""
    width = sum(1 if term.den is None else 2 for term in rows.terms)
    models = LinearRewards(rows.target.actions, folds=how.folds, rewards=width, penalty=penalty_of(how))
    for chunk in chunks:
        assert chunk.x is not None
        assert chunk.fold is not None
        w = kept_weights(chunk.weight, how.clip, how.switch) if how.cut else None
        policy = chunk.policy if how.own_error else None
        models.add(chunk.x, chunk.action, chunk.fold, chunk.rewards, policy, w)
    return models.fit()


def add_chunk(scored: Scored, rows: Rows, how: How, chunk: Chunk, predicted: Predicted | None) -> None:
    """Adds a chunk's scores."""
    w = kept_weights(chunk.weight, how.clip, how.switch)
    at = places(rows.terms)
    _add_shared(scored, rows, how, chunk, w, at)
    for term in rows.terms:
        _add_term(scored, how, chunk, w, term, at[term.name], predicted)
    _look_at(scored, rows, chunk, w)
    _add_sides(scored, rows, how, chunk, predicted)
    if predicted is not None:
        scored.quality.add(chunk.rewards[:, 0], predicted.logged[:, 0])


def _add_shared(
    scored: Scored, rows: Rows, how: How, chunk: Chunk, w: Vector, at: Mapping[str, tuple[int, int | None]]
) -> None:
    """Rows and weights: once for all terms that have a value on every row, and for each other term."""
    prefixes = {"": 0} | {shared(rows, term): at[term.name][0] for term in rows.terms}
    for prefix, column in prefixes.items():
        seen = np.ones(len(w), dtype=np.bool_) if not prefix else ~np.isnan(chunk.rewards[:, column])
        ones = seen.astype(np.float64)
        scored.sums.add(f"{prefix}n", chunk.codes, ones)
        if how.weighs:
            mine = w * ones
            scored.sums.add(f"{prefix}w", chunk.codes, mine)
            scored.sums.add(f"{prefix}w2", chunk.codes, mine * mine)
            cut, by = scored.clipped.get(prefix, (0.0, 0.0))
            less = (chunk.weight - w)[seen]
            scored.clipped[prefix] = (cut + float(np.count_nonzero(less > 0.0)), by + float(less.sum()))


def _add_term(
    scored: Scored,
    how: How,
    chunk: Chunk,
    w: Vector,
    term: Term,
    at: tuple[int, int | None],
    predicted: Predicted | None,
) -> None:
    unused = None if how.uses_all else chunk.weight - w if how.weighs else chunk.weight
    for column, l_name, t_name, f_name, u_name in ((at[0], "ln", "tn", "fn", "un"), (at[1], "ld", "td", "fd", "ud")):
        if column is None:
            if unused is not None and how.method == "snips":
                scored.sums.add(f"{term.name}|{u_name}", chunk.codes, unused * ~np.isnan(chunk.rewards[:, at[0]]))
            continue
        reward = chunk.rewards[:, column]
        seen = ~np.isnan(reward)
        known = np.where(seen, reward, 0.0)
        scored.sums.add(f"{term.name}|{l_name}", chunk.codes, known)
        value = target_scores(how, known, w, column, predicted)
        scored.sums.add(f"{term.name}|{t_name}", chunk.codes, np.where(seen, value, 0.0))
        if unused is not None:
            rest = known if predicted is None else known - predicted.logged[:, column]
            some = seen & (unused > 0.0)
            scored.sums.add(f"{term.name}|{u_name}", chunk.codes, np.where(some, unused * rest, 0.0))
        if predicted is not None and predicted.felt is not None:
            scored.sums.add(f"{term.name}|{f_name}", chunk.codes, np.where(seen, predicted.felt[:, column], 0.0))


def target_scores(how: How, reward: Vector, w: Vector, column: int, predicted: Predicted | None) -> Vector:
    """The method's scores of rows, as in ``estimators/policy_value.py``."""
    if predicted is None:
        return w * reward
    if how.method == "direct_method":
        return np.asarray(predicted.direct[:, column])
    return np.asarray(predicted.direct[:, column] + w * np.where(w > 0.0, reward - predicted.logged[:, column], 0.0))


def _look_at(scored: Scored, rows: Rows, chunk: Chunk, w: Vector) -> None:
    """The weights' tail, and weighted values of the first term, for a bound of its value."""
    weight = chunk.weight
    full = len(scored.top) > tail_length(rows.total)
    larger = weight[weight > scored.top.min()] if full else weight
    scored.top = largest_of(np.concatenate([scored.top, larger]), rows.total)
    scored.total += float(weight.sum())
    scored.squares += float(weight @ weight)
    scored.largest = max(scored.largest, float(w.max(initial=0.0)))
    scored.positive += int(np.count_nonzero(weight))
    reward = chunk.rewards[:, 0]
    seen = ~np.isnan(reward)
    if rows.terms[0].den is None and seen.any():
        known = reward[seen]
        scored.low, scored.high = min(scored.low, float(known.min())), max(scored.high, float(known.max()))
        scored.shares = scored.shares and bool(((known == 0.0) | (known == 1.0)).all())
        scored.sums.add(f"{BOUND}rows", chunk.codes[seen], np.ones(len(known)))
        scored.sums.add(f"{BOUND}w", chunk.codes[seen], weight[seen])
        scored.sums.add(f"{BOUND}score", chunk.codes[seen], weight[seen] * known)


def _add_sides(scored: Scored, rows: Rows, how: How, chunk: Chunk, predicted: Predicted | None) -> None:
    """Constant policies and other cuts of the weights, for the first term."""
    ratio = rows.terms[0].den is not None
    columns = (0, 1) if ratio else (0,)
    seen = ~np.isnan(chunk.rewards[:, 0])
    rewards = np.where(seen[:, None], chunk.rewards[:, : len(columns)], 0.0)
    counted = seen.astype(np.float64)
    scored.sums.add(SEEN, chunk.codes, counted)
    # By weights alone, a row of no weight tells of no value; only where rows are the units does it count as one.
    told = seen if predicted is not None or rows.units is None else seen & (chunk.weight > 0.0)
    codes, given, known = chunk.codes[told], chunk.weight[told], rewards[told]
    mine = None if predicted is None else predicted.of_rows(told)
    for (kind, cap), side in scored.trade.items():
        w = kept_weights(given, cap if kind == "clip" else None, cap if kind == "switch" else None)
        parts = [target_scores(how, known[:, c], w, c, mine) for c in columns]
        side.add(codes, parts[0], parts[1] if ratio else w if how.method == "snips" else None, w, given)
    inverse = kept_weights(chunk.inverse, how.clip, how.switch)
    if scored.by_action is not None and (predicted is None or predicted.every is None):
        v = inverse * counted
        den = v * rewards[:, 1] if ratio else None if how.method == "ips" and predicted is None else v
        scored.by_action.add(chunk.codes, chunk.action, v, v * rewards[:, 0], den)
        return
    for code, side in enumerate(scored.constants.values()):
        v = np.where(chunk.action == code, inverse, 0.0)
        parts, den = _constant(rewards, v, code, columns, counted, how, predicted)
        below = parts[1] if ratio else den
        side.add(chunk.codes[seen], parts[0][seen], None if below is None else below[seen], v[seen], v[seen])


def _constant(
    rewards: Matrix,
    v: Vector,
    code: int,
    columns: Sequence[int],
    counted: Vector,
    how: How,
    predicted: Predicted | None,
) -> tuple[list[Vector], Vector | None]:
    """Scores of the policy that always takes one action; by weights alone where no model knows every action."""
    if predicted is None or predicted.every is None:
        alone = how.method == "ips" and predicted is None
        return [v * rewards[:, c] for c in columns], None if alone else v * counted
    parts = []
    for c in columns:
        rest = v * np.where(v > 0.0, rewards[:, c] - predicted.logged[:, c], 0.0) if how.weighs else 0.0
        parts.append((predicted.every[:, code, c] + rest) * counted)
    return parts, None
