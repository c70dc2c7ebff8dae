"""Which Parquet files a spec's `logs.path` means, and whether they can be read together."""

from __future__ import annotations

import glob
import os
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import polars as pl

from readout.bundled import bundled
from readout.errors import LogError, Problem
from readout.scratch import Scratch
from readout.text import visible

# One row group ahead keeps a local scan as fast, and half as large in memory.
PREFETCH = "POLARS_ROW_GROUP_PREFETCH_SIZE"
REMOTE = (
    "s3://",
    "s3a://",
    "gs://",
    "gcs://",
    "az://",
    "azure://",
    "abfs://",
    "abfss://",
    "adl://",
    "http://",
    "https://",
)
# A store that is not there should be said so in seconds, not minutes.
PATIENCE = {"max_retries": 3, "retry_timeout_ms": 20_000, "connect_timeout": "5s"}
SAMPLE = "sample://"
FILE = "file://"
SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
MAGIC = b"PAR1"
# More of the same help nobody.
MOST_PROBLEMS = 10


@dataclass(frozen=True, slots=True)
class Beside:
    """Columns that readout puts beside those of the log.

    Attributes:
        schema: Name to type.
        files: Parquet files with them, one row for each of the log's, in its order; none as yet: nulls stand there.
        folder: Where the files are; they go when it does.
    """

    schema: Mapping[str, pl.DataType]
    files: tuple[str, ...]
    folder: Scratch | None = None


@dataclass(frozen=True, slots=True)
class Source:
    """Files that share one schema.

    Attributes:
        files: Local paths in sorted order, or object-store URLs as given.
        hive: Whether ``key=value`` folders add columns; None: as Polars finds in an object store.
        schema: Column name to Polars type, hive keys included.
        rows: Rows in all files, from their footers.
        beside: Further columns of the same rows; None: there are none.
    """

    files: tuple[str, ...]
    hive: bool | None
    schema: dict[str, pl.DataType]
    rows: int
    beside: Beside | None = None

    @property
    def local(self) -> bool:
        """Whether every file is on this machine."""
        return not any(f.startswith(REMOTE) for f in self.files)

    def scan(self) -> pl.LazyFrame:
        """The files as one lazy frame."""
        frame = _scan(self.files, self.hive)
        if self.beside is None:
            return frame
        if not self.beside.files:
            return frame.with_columns(pl.lit(None, dtype=d).alias(name) for name, d in self.beside.schema.items())
        return pl.concat([frame, pl.scan_parquet(list(self.beside.files), glob=False)], how="horizontal")


def find_source(paths: Sequence[str], base: Path) -> Source:
    """Resolve files, globs, directories, lists, `sample://` names and object-store URLs.

    Args:
        paths: `logs.path` of the spec.
        base: The folder that relative paths start from.

    Raises:
        LogError: Nothing found, not Parquet, truncated, or files with different schemas; every problem at once.
    """
    problems: list[Problem] = []
    by_identity: dict[str, str] = {}
    for path in paths:
        for file in _expand(path, base, problems):
            by_identity.setdefault(_identity(file), file)
    files = list(by_identity.values())
    local = [f for f in files if not f.startswith(REMOTE)]
    for file in local:
        _require_parquet(file, problems)
    if problems:
        raise _refusal(problems)
    where = visible(", ".join(paths))
    if local and len(local) < len(files):
        raise LogError([Problem(where, "mixes local files and an object store; expected one of the two")])
    if local:
        os.environ.setdefault(PREFETCH, "1")
    partitioned = any("=" in part for f in files for part in _below(f, base).parent.parts)
    hive = partitioned if local else partitioned or None
    _same_schema(local)
    try:
        frame = _scan(files, hive)
        with warnings.catch_warnings(action="ignore"):  # a store's region that Polars finds out by itself
            schema = dict(frame.collect_schema())
            rows = int(frame.select(pl.len()).collect().item())
    except Exception as error:
        if local:
            raise LogError([Problem(where, f"cannot be read as Parquet: {_first_line(error)}")]) from error
        hint = "check the address, and the store's credentials and region in the environment"
        raise LogError([Problem(where, f"cannot be read: {_first_line(error)}", hint)]) from error
    return Source(tuple(files), hive, schema, rows)


def _scan(files: Sequence[str], hive: bool | None) -> pl.LazyFrame:
    """Local names are taken literally: a file may be called ``a[1].parquet``."""
    remote = files[0].startswith(REMOTE)
    options: Any = PATIENCE if remote else None
    return pl.scan_parquet(list(files), hive_partitioning=hive, glob=remote, storage_options=options)


def _identity(file: str) -> str:
    return file if file.startswith(REMOTE) else os.path.realpath(file)


def _below(file: str, base: Path) -> Path:
    """The part of a path that the spec speaks of: folders above the spec's own are no partitions."""
    path = Path(file)
    return path.relative_to(base) if path.is_relative_to(base) else path


def _expand(path: str, base: Path, problems: list[Problem]) -> list[str]:
    if path.startswith(REMOTE):
        return [path]
    if path.startswith(SAMPLE):
        name = path.removeprefix(SAMPLE).removesuffix(".parquet") + ".parquet"
        folder = bundled("sample_logs")
        if (folder / name).is_file():
            return [str(folder / name)]
        names = ", ".join(sorted(SAMPLE + f.stem for f in folder.glob("*.parquet")))
        problems.append(Problem(visible(path), "no bundled sample log has this name", f"there are: {names}"))
        return []
    if path.startswith(FILE):
        path = unquote(path.removeprefix(FILE))
    elif scheme := SCHEME.match(path):
        known = ", ".join((*REMOTE, FILE, SAMPLE))
        problems.append(Problem(visible(path), f"{visible(scheme[0])} is no store that can be read", f"known: {known}"))
        return []
    path = os.path.expanduser(path)
    full = base / path
    if full.is_dir():
        found = _in_folder(full)
        if not found:
            problems.append(Problem(visible(str(full)), "this directory holds no *.parquet file"))
        return found
    if full.is_file():
        return [str(full)]
    if not glob.has_magic(path):
        problems.append(Problem(visible(str(full)), "no such file or directory", _nearest_folder(full)))
        return []
    matches = [base / match for match in sorted(glob.glob(path, root_dir=base, recursive=True))]
    found = [f for match in matches for f in (_in_folder(match) if match.is_dir() else [str(match)])]
    if not found:
        problems.append(Problem(visible(str(full)), "no file matches this pattern", _nearest_folder(full)))
    return found


def _in_folder(folder: Path) -> list[str]:
    """Parquet files at any depth; names that begin with ``_`` or ``.`` are other programs' unfinished work."""
    files = (f for f in folder.rglob("*.parquet") if f.is_file())
    return sorted(str(f) for f in files if not any(p[0] in "_." for p in f.relative_to(folder).parts))


def _refusal(problems: Sequence[Problem]) -> LogError:
    more = len(problems) - MOST_PROBLEMS
    last = [Problem("logs.path", f"{more} more files have such problems")] if more > 0 else []
    return LogError([*problems[:MOST_PROBLEMS], *last])


def _nearest_folder(path: Path) -> str:
    parent = next((p for p in path.parents if p.is_dir() and not glob.has_magic(str(p))), None)
    if parent is None:
        return ""
    names = sorted(f.name for f in parent.glob("*.parquet"))[:5]
    listing = ", ".join(visible(n) for n in names) if names else "no Parquet file"
    return f"{visible(str(parent))} holds {listing}; paths are relative to the spec file"


def _require_parquet(file: str, problems: list[Problem]) -> None:
    try:
        with open(file, "rb") as handle:
            head = handle.read(4)
            size = handle.seek(0, os.SEEK_END)
            handle.seek(max(size - 4, 0))
            tail = handle.read(4)
    except OSError as error:
        problems.append(Problem(visible(file), f"cannot be opened: {error.strerror or error}"))
        return
    if size == 0:
        problems.append(Problem(visible(file), "the file is empty; expected Parquet"))
    elif head != MAGIC:
        problems.append(Problem(visible(file), "not a Parquet file (it does not begin with PAR1)"))
    elif tail != MAGIC or size < 12:
        problems.append(
            Problem(visible(file), "a truncated Parquet file (its footer is missing)", "write or copy it again")
        )


def _same_schema(files: Sequence[str]) -> None:
    """Every file has the first one's columns and types; the difference is named by file and column."""
    problems: list[Problem] = []
    first: dict[str, pl.DataType] | None = None
    for file in files:
        try:
            schema = dict(_scan([file], False).collect_schema())
        except Exception as error:
            problems.append(Problem(visible(file), f"cannot be read as Parquet: {_first_line(error)}"))
            continue
        if first is None:
            first = schema
            continue
        differences = [
            f"column {visible(name)!r} is {_type(schema.get(name))}, in the first file {_type(first.get(name))}"
            for name in sorted(first.keys() | schema.keys())
            if first.get(name) != schema.get(name)
        ]
        if differences:
            problems.append(
                Problem(
                    visible(file),
                    f"its schema differs from that of {visible(files[0])}: " + "; ".join(differences[:5]),
                    "write the files with one schema, or name only those that share it in logs.path",
                )
            )
    if problems:
        raise _refusal(problems)


def _type(dtype: pl.DataType | None) -> str:
    return "absent" if dtype is None else str(dtype)


def _first_line(error: Exception) -> str:
    return visible(str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__)
