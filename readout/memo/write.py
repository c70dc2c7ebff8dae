"""Writing a readout's folder whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from readout.errors import Problem, SpecError

_MARKS = ("readout.json", "plan.json")  # what tells a readout's folder from any other
_PLAN = ("plan.md", "plan.json", "schedule.parquet", "assignment.parquet")


def write(out_dir: Path, files: Mapping[str, bytes | str], *, plan: bool = False) -> None:
    """Write ``files`` (relative path to content; text as UTF-8) as the whole readout, or plan, of ``out_dir``.

    They are written beside it and renamed into place: on any failure or interrupt ``out_dir`` is as it was before,
    and no folder made on the way is left. A previous readout of the folder is replaced whole, and so is a previous
    plan; either leaves the other's files as they are.

    Raises:
        SpecError: The folder cannot be written, or holds something that is not a readout.
        ValueError: A path in ``files`` leaves the folder.
    """
    for path in files:
        _require_inside(path)
    target = out_dir.resolve()
    try:
        _refuse_foreign(out_dir, target)
        made = _make_parents(target.parent)
        try:
            _write_and_swap(target, {**_others(target, plan), **files})
        except BaseException:
            for folder in made:
                with contextlib.suppress(OSError):
                    folder.rmdir()
            raise
    except OSError as error:
        reason = error.strerror or str(error)
        problem = f"the readout cannot be written here: {reason}"
        raise SpecError([Problem(str(out_dir), problem, "choose a folder that can be written with --out")]) from error


def _require_inside(path: str) -> None:
    pure = PurePosixPath(path)
    if not pure.parts or pure.is_absolute() or ".." in pure.parts or "\\" in path:
        raise ValueError(f"a readout's file must lie inside its folder: {path!r}")


def _refuse_foreign(shown: Path, target: Path) -> None:
    if not target.exists():
        return
    hint = "choose another folder with --out, or move away what is there"
    if not target.is_dir():
        raise SpecError([Problem(str(shown), "a file stands where the readout's folder should be", hint)])
    if any(target.iterdir()) and not any((target / mark).is_file() for mark in _MARKS):
        problem = f"the folder is not empty and holds no {_MARKS[0]}, so it is not replaced"
        raise SpecError([Problem(str(shown), problem, hint)])


def _others(target: Path, plan: bool) -> dict[str, bytes | str]:
    """What stands in the folder and is not to be replaced: a readout beside a plan, a plan beside a readout."""
    if not target.is_dir():
        return {}
    names = ((path, path.relative_to(target).as_posix()) for path in sorted(target.rglob("*")) if path.is_file())
    return {name: path.read_bytes() for path, name in names if (name in _PLAN) != plan}


def _make_parents(parent: Path) -> list[Path]:
    """Make ``parent``; the folders that were not there before, deepest first."""
    missing = [folder for folder in (parent, *parent.parents) if not folder.exists()]
    parent.mkdir(parents=True, exist_ok=True)
    return missing


def _write_and_swap(target: Path, files: Mapping[str, bytes | str]) -> None:
    beside = target.parent / f".{target.name}.{os.getpid()}-{secrets.token_hex(4)}"
    fresh, old = beside.with_name(beside.name + ".new"), beside.with_name(beside.name + ".old")
    try:
        fresh.mkdir()
        for path, content in files.items():
            file = fresh / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content.encode() if isinstance(content, str) else content)
        if target.exists():
            target.rename(old)
        fresh.rename(target)
    except BaseException:
        if old.exists() and not target.exists():
            old.rename(target)
        raise
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
        if target.exists():
            shutil.rmtree(old, ignore_errors=True)
