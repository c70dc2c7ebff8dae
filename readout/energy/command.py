"""``readout attribute``: the energy of every request of a log, as a file and in sum."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from attribution.model import EnergyModel
from readout import spec as specs
from readout.energy import bias, files, requests
from readout.energy.games import load_game, sampling
from readout.energy.model import energy_model, require_columns
from readout.energy.rows import Attributed, attribute_log
from readout.energy.summary import flags
from readout.energy.totals import Totals
from readout.errors import LogError, Problem
from readout.logs import Source, find_source
from readout.spec.model import Carbon, Spec
from readout.text import visible

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Report:
    """What ``readout attribute`` tells of a log.

    Attributes:
        name, spec_sha256, seed: Of the spec and the command.
        model: The energy model.
        method: How the shares were computed.
        rows: Rows of the log.
        totals: Sums over all requests.
        groups: Sums and biases by arm, segment, prompt length and concurrency; the first is of all requests.
        sentences: The rules' largest biases in words.
        notes: What could not be used, and what is far from usual.
        carbon: How carbon was counted; None: it was not.
        game: The game named on the command line; None: the energy model's.
    """

    name: str
    spec_sha256: str
    seed: int
    model: EnergyModel
    method: str
    rows: int
    totals: Totals
    groups: tuple[bias.Group, ...]
    sentences: tuple[str, ...]
    notes: tuple[str, ...]
    carbon: Carbon | None
    game: str | None = None

    @property
    def everything(self) -> bias.Group:
        """All requests with a share."""
        return self.groups[0]


def attribute(
    spec_path: Path,
    *,
    overrides: Sequence[str] = (),
    out: Path = Path("memos"),
    game: str | None = None,
    seed: int | None = None,
    progress: Say = lambda _: None,
) -> tuple[Report, Path]:
    """Attributes every batch of the spec's logs and writes a row for each request.

    Args:
        spec_path: A spec; of its sections only logs and attribution are needed, arms and segments are shown if there.
        overrides: ``dotted.key=value`` entries of ``--set``.
        out: Folder under which ``<name>/attribution/shares.parquet`` is written.
        game: ``module:function`` of a game that is sampled instead of the energy model's.
        seed: Of sampled shares; an exact share needs none.
        progress: Called with a word on what happens next.

    Returns:
        The report and the file of shares.

    Raises:
        SpecError: The command line or spec is wrong, or asks for what is not available yet.
        LogError: The logs cannot support it.
    """
    spec, source = opened(spec_path, overrides)
    model = energy_model(spec)
    sampled = sampling(spec, model, None if game is None else load_game(game), seed or 0)
    progress("attributing the logs")
    attributed = attribute_log(spec, source, model, full=True, sampled=sampled)
    require_shares(spec, source, attributed.totals)
    groups = bias.groups_of(spec, source, attributed)
    progress("writing the shares")
    path = files.folder(out, spec) / files.SHARES
    files.write_whole(path, lambda draft: requests.write_rows(draft, _frames(attributed, groups, seed or 0, game)))
    found = groups.found()
    report = Report(
        name=spec.name,
        spec_sha256=spec.sha256,
        seed=seed or 0,
        model=attributed.model,
        method=attributed.totals.method,
        rows=source.rows,
        totals=attributed.totals,
        groups=tuple(found),
        sentences=tuple(bias.sentences(found, groups.company)),
        notes=(*flags(attributed.totals), *groups.notes()),
        carbon=attributed.carbon,
        game=game,
    )
    return report, path


def opened(spec_path: Path, overrides: Sequence[str]) -> tuple[Spec, Source]:
    """A spec whose attribution can be computed, and its files.

    Raises:
        SpecError, LogError: As :func:`attribute`.
    """
    spec = specs.load(spec_path, overrides, experiment=False)
    energy_model(spec)
    source = find_source(spec.logs.path, spec.base)
    require_columns(spec, source)
    if not source.rows:
        raise LogError([Problem(visible(", ".join(spec.logs.path)), "the log has no rows")])
    return spec, source


def require_shares(spec: Spec, source: Source, totals: Totals) -> None:
    """Refuse a log of which no request has a share.

    Raises:
        LogError: Why none has one.
    """
    if not totals.requests:
        why = "; ".join(f"{n:,} {reason}" for reason, n in totals.unattributed.items())
        message = f"none of {source.rows:,} rows can be attributed: {why}"
        raise LogError([spec.source.problem(("attribution", "columns"), message, on_key=True)])


def _frames(attributed: Attributed, groups: bias.Groups, seed: int, game: str | None) -> Iterator[pl.DataFrame]:
    """The rows of the file, each range counted in its groups on the way."""
    extra = {**requests.names(attributed.spec, attributed.source), **bias.segment_levels(groups)}
    for frame in attributed.ranges(extra):
        groups.add(frame)
        yield requests.rows(attributed, frame, seed, game)
