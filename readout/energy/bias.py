"""What rules of thumb charge groups of requests, held against their Shapley shares.

Every rule shares out the same energy of the same batches, so that what it charges a group beyond its Shapley shares it
takes from the others. Leave-one-out values are no such rule: they do not add up to a batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl

from readout.energy.model import CARBON, ENERGY
from readout.energy.requests import ARM
from readout.energy.rows import COLD, RULES, SHARE, Attributed, rule_column
from readout.errors import ReadoutError
from readout.logs import Source
from readout.logs.expressions import Expressions
from readout.logs.values import label
from readout.memo.numbers import count, number, percent
from readout.reduce import collect
from readout.spec.model import Spec
from readout.text import named

MOST_LEVELS = 30
WORTH_A_WORD = 0.05  # of a group's energy
ROUNDING = 1e-9
FEWEST = 20  # requests of a group that a sentence is made of
TITLES = {
    "per_token": "per-token",
    "per_request": "per-request",
    "provisioned": "provisioned-share",
    "leave_one_out": "leave-one-out",
}
PROMPTS, COMPANY, BOTH, EVERYTHING = "prompt tokens", "concurrency", "prompt length and concurrency", "all"
SHORT, LONG = "short prompts", "long prompts"
TOLERANT, SENSITIVE = "concurrency-tolerant", "concurrency-sensitive"
_SUMS = (SHARE, COLD, ENERGY, CARBON, "leave_one_out_wh", *map(rule_column, RULES))


@dataclass(frozen=True, slots=True)
class Group:
    """Requests of one level of a grouping.

    Attributes:
        grouping: What they are grouped by: ``arm``, the name of a segment, ``prompt length``, ….
        level: Which of them.
        requests: With a share.
        sums: Column → its sum; ``priced`` counts those with carbon, ``off RULE`` sums absolute differences.
    """

    grouping: str
    level: str
    requests: int
    sums: Mapping[str, float]

    @property
    def share_wh(self) -> float:
        """Energy of its requests' Shapley shares."""
        return self.sums[SHARE]

    def bias(self, rule: str) -> float | None:
        """What a rule charges the group more than its Shapley shares, as a part of these."""
        wh = self.sums["leave_one_out_wh" if rule == "leave_one_out" else rule_column(rule)]
        return _clean(wh / self.share_wh - 1) if self.share_wh > 0 else None

    def off(self, rule: str) -> float | None:
        """Mean absolute difference of a rule by request, as a part of the mean share."""
        return _clean(self.sums[f"off {rule}"] / self.share_wh) if self.share_wh > 0 else None


@dataclass(slots=True)
class Groups:
    """Groupings of the requests of a log, and their sums so far.

    Attributes:
        segments: Name → the level of a row, over the raw columns of the log; null: of none.
        left_out: Why segments of the spec are not among them.
        prompts: Prompt tokens at the quartiles of the requests.
        company: Mean number of active requests beside the middle request.
    """

    segments: Mapping[str, pl.Expr]
    left_out: Sequence[str]
    prompts: tuple[float, float, float]
    company: float
    _many: set[str] = field(default_factory=set)
    _sums: dict[tuple[str, str], np.ndarray[Any, np.dtype[np.float64]]] = field(default_factory=dict)

    def add(self, frame: pl.DataFrame) -> None:
        """Take in a range of rows."""
        frame = frame.filter(pl.col(SHARE).is_not_null()).with_columns(**self._levels())
        values = frame.select(_values()).fill_null(0.0).to_numpy()
        groupings = [EVERYTHING, *([ARM] if ARM in frame.columns else []), *self.segments, PROMPTS, COMPANY, BOTH]
        for grouping in groupings:
            levels = frame[ARM if grouping == ARM else f"@level {grouping}"]
            known = levels.drop_nulls().unique().sort()
            if len(known) > MOST_LEVELS:
                self._many.add(grouping)
                continue
            codes = levels.replace_strict(known, np.arange(len(known)), default=-1, return_dtype=pl.Int64).to_numpy()
            for code, level in enumerate(known):
                # Added in the order of the rows, so that the same log gives the same sums.
                mine = values[codes == code].sum(axis=0)
                self._sums[grouping, level] = self._sums.get((grouping, level), 0.0) + mine

    def found(self) -> list[Group]:
        """The groups, by grouping; one of too many levels is left out."""
        groups = [
            Group(grouping, level, round(sums[0]), dict(zip(_names(), sums.tolist(), strict=True)))
            for (grouping, level), sums in self._sums.items()
        ]
        by = {group.grouping: sum(g.grouping == group.grouping for g in groups) for group in groups}
        order = {name: i for i, name in enumerate((EVERYTHING, ARM, *self.segments, PROMPTS, COMPANY, BOTH))}
        kept = [g for g in groups if g.grouping not in self._many and by[g.grouping] <= MOST_LEVELS]
        return sorted(kept, key=lambda g: (order[g.grouping], self._place(g.level)))

    def notes(self) -> list[str]:
        """What could not be grouped by, and why."""
        by = {grouping: sum(g == grouping for g, _ in self._sums) for grouping, _ in self._sums}
        many = sorted(self._many | {grouping for grouping, n in by.items() if n > MOST_LEVELS})
        return [*self.left_out, *(f"{named(g)} has more than {MOST_LEVELS} levels and is no grouping" for g in many)]

    def _levels(self) -> dict[str, pl.Expr]:
        low, middle, high = self.prompts
        prompt = pl.col("prompt_tokens")
        quarter: pl.Expr = (
            pl.when(prompt <= low).then(pl.lit(self._quarters[0]))
            .when(prompt <= middle).then(pl.lit(self._quarters[1]))
            .when(prompt <= high).then(pl.lit(self._quarters[2]))
            .otherwise(pl.lit(self._quarters[3]))
        )  # fmt: skip
        busy = pl.col("concurrency") >= self.company
        differ = pl.lit(low < high)  # where most prompts are alike, none of them is short or long
        length = pl.when(differ & (prompt <= low)).then(pl.lit(SHORT)).when(differ & (prompt > high)).then(pl.lit(LONG))
        among = pl.when(busy).then(pl.lit("busy batches")).otherwise(pl.lit("quiet batches"))
        return {
            f"@level {EVERYTHING}": pl.lit("all requests"),
            f"@level {PROMPTS}": quarter,
            f"@level {COMPANY}": pl.when(busy).then(pl.lit(TOLERANT)).otherwise(pl.lit(SENSITIVE)),
            f"@level {BOTH}": pl.concat_str(length, pl.lit(" in "), among),
        }

    @property
    def _quarters(self) -> tuple[str, ...]:
        ends = [count(tokens) for tokens in self.prompts]
        low, middle, high = (count(tokens + 1) for tokens in self.prompts)
        return (f"up to {ends[0]}", f"{low} to {ends[1]}", f"{middle} to {ends[2]}", f"{high} or more")

    def _place(self, level: str) -> tuple[int, str]:
        """Quarters of prompts by their length, all else by name."""
        return (self._quarters.index(level), "") if level in self._quarters else (0, level)


def groups_of(spec: Spec, source: Source, attributed: Attributed) -> Groups:
    """Arm, the spec's segments as far as the log has them, and what batches were like."""
    segments: dict[str, pl.Expr] = {}
    left_out = []
    expressions = Expressions(spec, source.schema)
    for i, segment in enumerate(spec.segments):
        try:
            if segment.where is not None:
                condition = expressions.condition(segment.where, ("segments", i, "where"))
                segments[segment.name] = pl.when(condition).then(pl.lit("yes")).otherwise(pl.lit("no"))
            elif segment.column is not None:
                column = expressions.column(segment.column, ("segments", i, "column"))
                segments[segment.name] = label(column, source.schema[segment.column])
        except ReadoutError as error:
            left_out.append(f"segment {named(segment.name)} is left out: {error.problems[0].message}")
    tokens, beside = pl.col("prompt_tokens"), pl.col("concurrency")
    shared = pl.concat(attributed.parts).filter(pl.col(SHARE).is_not_null())
    levels = [tokens.quantile(q, "lower").alias(f"p{q}") for q in (0.25, 0.5, 0.75)]
    low, middle, high, company = collect([shared.select(*levels, beside.quantile(0.5, "lower").alias("c"))])[0].row(0)
    return Groups(segments, left_out, (low, middle, high), company)


def segment_levels(groups: Groups) -> dict[str, pl.Expr]:
    """The levels of the segments, to be read beside the shares."""
    return {f"@level {name}": level for name, level in groups.segments.items()}


def sentences(found: Sequence[Group], company: float) -> list[str]:
    """The largest bias of every rule in words."""
    said = [*_by_prompt(found), *_by_company(found)]
    middle = number(company)
    if any(g.grouping == COMPANY for g in found):
        said.append(
            f"Concurrency-tolerant requests are those that ran among at least {middle} active requests (the middle one "
            "of the log; the mean over a request's own steps, itself counted), concurrency-sensitive those that ran "
            "among fewer."
        )
    return said


def _by_prompt(found: Sequence[Group]) -> Iterator[str]:
    cells = [g for g in found if g.grouping == BOTH and g.requests >= FEWEST]
    for rule in RULES:
        biased = [(bias, g.level) for g in cells if (bias := g.bias(rule)) is not None]
        if not biased:
            continue
        bias, level = max(biased, key=lambda one: (abs(one[0]), one[1]))
        if abs(bias) < WORTH_A_WORD:
            yield f"{_title(rule)} is within {percent(WORTH_A_WORD)} of the shares of short and of long prompts."
        else:
            does = "overcharges" if bias > 0 else "undercharges"
            yield f"{_title(rule)} {does} {level} by {percent(abs(bias))}."


def _by_company(found: Sequence[Group]) -> Iterator[str]:
    cells = {g.level: g for g in found if g.grouping == COMPANY and g.requests >= FEWEST}
    if set(cells) != {TOLERANT, SENSITIVE}:
        return
    for rule in RULES:
        tolerant, sensitive = (cells[level].bias(rule) for level in (TOLERANT, SENSITIVE))
        if tolerant is None or sensitive is None or max(abs(tolerant), abs(sensitive)) < WORTH_A_WORD:
            continue
        yield (
            f"{_title(rule)} charges concurrency-tolerant requests {_more(tolerant)} and concurrency-sensitive ones "
            f"{_more(sensitive)} than their share."
        )


def _clean(part: float) -> float:
    """A part of a sum; what is left of rounding is none."""
    return part if abs(part) > ROUNDING else 0.0


def _title(rule: str) -> str:
    return TITLES[rule][0].upper() + TITLES[rule][1:]


def _more(bias: float) -> str:
    return f"{percent(abs(bias))} {'more' if bias >= 0 else 'less'}"


def _names() -> list[str]:
    return ["requests", *_SUMS, "priced", "priced energy", *(f"off {rule}" for rule in RULES)]


def _values() -> list[pl.Expr]:
    off = [(pl.col(rule_column(rule)) - pl.col(SHARE)).abs().alias(f"off {rule}") for rule in RULES]
    priced = pl.col(CARBON).is_not_null().cast(pl.Float64).alias("priced")
    energy = pl.when(pl.col(CARBON).is_not_null()).then(ENERGY).alias("priced energy")
    return [pl.lit(1.0).alias("requests"), *(pl.col(name) for name in _SUMS), priced, energy, *off]
