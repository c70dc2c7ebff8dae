"""Which Parquet files a spec's `logs.path` means, and whether they can be read together."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from readout.bundled import bundled
from readout.errors import LogError, Problem
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
    "file://",
)
SAMPLE = "sample://"
MAGIC = b"PAR1"


@dataclass(frozen=True, slots=True)
class Source:
    """Files that share one schema.

    Attributes:
        files: Local paths in sorted order, or object-store URLs as given.
        hive: Whether ``key=value`` folders add columns.
        schema: Column name to Polars type, hive keys included.
        rows: Rows in all files, from their footers.
    """

    files: tuple[str, ...]
    hive: bool
    schema: dict[str, pl.DataType]
    rows: int

    @property
    def local(self) -> bool:
        """Whether every file is on this machine."""
        return not any(f.startswith(REMOTE) for f in self.files)

    def scan(self) -> pl.LazyFrame:
        """The files as one lazy frame."""
        return pl.scan_parquet(list(self.files), hive_partitioning=self.hive)


def find_source(paths: Sequence[str], base: Path) -> Source:
    """Resolve files, globs, directories, lists, `sample://` names and object-store URLs.

    Args:
        paths: `logs.path` of the spec.
        base: The folder that relative paths start from.

    Raises:
        LogError: Nothing found, not Parquet, truncated, or files with different schemas; every problem at once.
    """
    problems: list[Problem] = []
    files: list[str] = []
    for path in paths:
        found = _expand(path, base, problems)
        files.extend(f for f in found if f not in files)
    local = [f for f in files if not f.startswith(REMOTE)]
    for file in local:
        _require_parquet(file, problems)
    if problems:
        raise LogError(problems)
    if len(local) == len(files):
        os.environ.setdefault(PREFETCH, "1")
    hive = any("=" in part for f in files for part in Path(f).parent.parts)
    _same_schema(local)
    try:
        frame = pl.scan_parquet(files, hive_partitioning=hive)
        schema = dict(frame.collect_schema())
        rows = int(frame.select(pl.len()).collect().item())
    except Exception as error:
        raise LogError([Problem(", ".join(paths), f"cannot be read as Parquet: {_first_line(error)}")]) from error
    return Source(tuple(files), hive, schema, rows)


def _expand(path: str, base: Path, problems: list[Problem]) -> list[str]:
    if path.startswith(REMOTE):
        return [path]
    if path.startswith(SAMPLE):
        name = path.removeprefix(SAMPLE).removesuffix(".parquet") + ".parquet"
        folder = bundled("sample_logs")
        if (folder / name).is_file():
            return [str(folder / name)]
        names = ", ".join(sorted(SAMPLE + f.stem for f in folder.glob("*.parquet")))
        problems.append(Problem(path, "no bundled sample log has this name", f"there are: {names}"))
        return []
    full = Path(os.path.expanduser(path))
    full = full if full.is_absolute() else base / full
    if full.is_file():
        return [str(full)]
    if full.is_dir():
        found = sorted(str(f) for f in full.rglob("*.parquet") if f.is_file())
        if not found:
            problems.append(Problem(visible(str(full)), "this directory holds no *.parquet file"))
        return found
    if glob.has_magic(str(full)):
        found = sorted(f for f in glob.glob(str(full), recursive=True) if os.path.isfile(f))
        if not found:
            problems.append(Problem(visible(str(full)), "no file matches this pattern", _nearest_folder(full)))
        return found
    problems.append(Problem(visible(str(full)), "no such file or directory", _nearest_folder(full)))
    return []


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
            schema = dict(pl.read_parquet_schema(file))
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
        raise LogError(problems)


def _type(dtype: pl.DataType | None) -> str:
    return "absent" if dtype is None else str(dtype)


def _first_line(error: Exception) -> str:
    return visible(str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__)
