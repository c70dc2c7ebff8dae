"""The assignment of the recommended design as a file, with how it was drawn."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import numpy as np
import polars as pl

from readout import schedules
from readout.errors import SpecError
from readout.mechanisms import Mechanism
from readout.planning.ask import Ask
from readout.planning.designs import Candidate, said
from readout.planning.errors import matched
from readout.planning.series import Floats
from readout.spec.model import Spec

SCHEDULE, ASSIGNMENT = "schedule.parquet", "assignment.parquet"
METADATA = "readout.assignment"


@dataclass(frozen=True, slots=True)
class Assignment:
    """What the plan assigns.

    Attributes:
        file: Name of the file; empty where none is needed.
        content: Its bytes.
        mechanism: How the arms are drawn, as it stands in the file too.
        counts: Randomized units by arm.
        balance: Arm to part of the calendar to blocks.
        use: What to do with it.
    """

    mechanism: Mapping[str, Any]
    use: str
    file: str = ""
    content: bytes = b""
    counts: Mapping[str, int] = field(default_factory=dict)
    balance: Mapping[str, Mapping[str, int]] = field(default_factory=dict)


def assignment(
    spec: Spec, ask: Ask, candidate: Candidate, clusters: Sequence[str], values: Floats | None, seed: int
) -> Assignment:
    """Draws the recommended design's arms.

    Args:
        spec: For its name.
        ask: The plan's questions.
        candidate: The recommended design.
        clusters: Names of the clusters; none are known without past logs.
        values: The first primary's past value of every cluster, to match them by.
        seed: Of the draw.

    Raises:
        SpecError: No block fits into the planned time.
    """
    if candidate.kind == "switchback":
        return _schedule(spec, ask, candidate, clusters, seed)
    if candidate.kind == "cluster_rct":
        if values is None or not len(clusters):
            return Assignment(
                {"kind": "complete", "split": ask.split, "seed": seed}, "give past logs with the clusters"
            )
        return _clusters(ask, candidate, clusters, values, seed)
    role = "request" if candidate.kind == "request_rct" else "unit"
    salt = f"{spec.name}/{seed}"
    by_hash = {"kind": "hash", "salt": salt, "split": ask.split, "traffic": ask.traffic}
    enrolled = "" if ask.traffic == 1.0 else f"; {ask.traffic:.3g} of them are enrolled, by a hash with another salt"
    use = (
        f"no file: hash each {role} id with the salt {salt!r} (SHA-256, as a share between 0 and 1) and cut at the "
        f"arms' shares{enrolled}; log the arm and when it was assigned"
    )
    if role == "unit":
        use += "; units that send far more than others are best hashed within strata of their past volume"
    return Assignment(by_hash, use)


def _schedule(spec: Spec, ask: Ask, candidate: Candidate, clusters: Sequence[str], seed: int) -> Assignment:
    assert candidate.block is not None
    apart = candidate.unit == "cluster-block"
    how = Mechanism(ask.mechanism, ask.split, seed, together=not apart)
    last = ask.end - candidate.block + timedelta(microseconds=1)
    try:
        drawn = schedules.draw(
            how, ask.start, last, candidate.block, offset=ask.offset, clusters=clusters if apart else ()
        )
    except ValueError:
        message = f"no block of {said(candidate.block)} fits into {ask.days:g} days"
        raise SpecError([spec.source.problem(("plan", "duration"), message)]) from None
    kind = {
        "balanced": "balanced over weekday, weekend and time of day",
        "bernoulli": "a coin for every block",
        "paired": "in pairs of successive blocks",
    }[ask.mechanism]
    mechanism = {
        "kind": ask.mechanism, "said": kind, "split": ask.split, "seed": seed, "together": not apart,
        "block": said(candidate.block), "first": ask.start.isoformat(), "end": ask.end.isoformat(),
    }  # fmt: skip
    use = f"set design.schedule: {SCHEDULE}, block: {said(candidate.block)}, washout: {said(candidate.washout)}"
    if ask.mechanism == "bernoulli":
        use += "; assignment: balanced would hold the arms even over weekday, weekend and time of day"
    return Assignment(
        mechanism,
        use.replace("washout: 0s", "washout: none"),
        SCHEDULE,
        schedules.to_bytes(drawn),
        _counts(ask, drawn.blocks),
        _balance(ask, drawn.blocks),
    )


def _counts(ask: Ask, blocks: pl.DataFrame) -> dict[str, int]:
    found = dict(blocks.group_by("arm").agg(pl.len()).iter_rows())
    return {arm: int(found.get(arm, 0)) for arm in ask.arms}


def _balance(ask: Ask, blocks: pl.DataFrame) -> dict[str, dict[str, int]]:
    """Blocks by arm on weekdays and weekends, by quarter of the day."""
    weekend = pl.col("start").dt.weekday() >= 6
    quarter = pl.col("start").dt.hour() // 6
    parts = [
        (f"{name} {6 * q:02d}-{6 * q + 6:02d}h", test & (quarter == q))
        for name, test in (("weekdays", ~weekend), ("weekend", weekend))
        for q in range(4)
    ]
    table = blocks.group_by("arm").agg(*(test.sum().alias(name) for name, test in parts))
    rows = {row["arm"]: row for row in table.iter_rows(named=True)}
    return {arm: {name: int(rows[arm][name]) if arm in rows else 0 for name, _ in parts} for arm in ask.arms}


def _clusters(ask: Ask, candidate: Candidate, clusters: Sequence[str], values: Floats, seed: int) -> Assignment:
    """Arms of clusters: a coin in every pair, else shares within strata of neighbouring past values."""
    rng = np.random.default_rng([3, seed])
    n, k = len(clusters), len(ask.arms)
    arm = np.zeros(n, np.intp)
    if candidate.pairs:
        group = matched(values)
        for code in range(int(group.max()) + 1):
            arm[rng.permutation(np.flatnonzero(group == code))] = np.arange(2)
        arm[group < 0] = rng.integers(0, 2, int((group < 0).sum()))
        column, kind = "pair", "pairs"
        use = "log the arm and the pair on every row, and set design.pairs: pair"
    else:
        strata = max(1, min(4, int(n * min(ask.split.values()) // 2)))
        order = np.argsort(values, kind="stable")
        group = np.empty(n, np.intp)
        group[order] = np.arange(n) * strata // n
        lead = np.zeros(k)
        for code in range(strata):
            arm[group == code] = _in_shares(np.array([*ask.split.values()]), int((group == code).sum()), lead, rng)
        column, kind = "stratum", "strata" if strata > 1 else "complete"
        use = "log the arm on every row"
        use += " and the stratum, and set design.strata: [stratum]" if strata > 1 else ""
    named = [None if code < 0 else f"{column} {code + 1}" for code in group]
    frame = pl.DataFrame(
        {"cluster": list(clusters), column: named, "arm": [ask.arms[a] for a in arm]},
        schema={"cluster": pl.String, column: pl.String, "arm": pl.String},
    )
    how = {"kind": kind, "split": ask.split, "seed": seed, "matched_by": "the first primary's past value"}
    out = io.BytesIO()
    frame.write_parquet(out, metadata={METADATA: json.dumps(how, sort_keys=True)})
    counts = {name: int((arm == code).sum()) for code, name in enumerate(ask.arms)}
    return Assignment(how, use, ASSIGNMENT, out.getvalue(), counts)


def _in_shares(shares: Floats, n: int, lead: Floats, rng: np.random.Generator) -> np.ndarray:
    """``n`` arms in random order, as near to their shares as counts allow; ``lead`` carries what rounding gave."""
    target = shares * n - lead
    given = np.maximum(np.floor(target + 1e-9), 0.0)
    while given.sum() < n:
        given[int(np.argmax(target - given + 1e-6 * rng.random(len(shares))))] += 1
    while given.sum() > n:
        given[int(np.argmin(np.where(given > 0, target - given, np.inf)))] -= 1
    lead += given - shares * n
    return rng.permutation(np.repeat(np.arange(len(shares)), given.astype(np.intp)))
