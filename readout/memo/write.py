"""Writing a readout's folder whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from readout.errors import Problem, SpecError

_MARK = "readout.json"  # what tells a readout's folder from any other


def write(out_dir: Path, files: Mapping[str, bytes | str]) -> None:
    """Write ``files`` (relative path to content; text as UTF-8) as the whole content of ``out_dir``.

    They are written beside it and renamed into place: on any failure or interrupt ``out_dir`` is as it was before,
    and no folder made on the way is left. A previous readout of the folder is replaced whole.

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
            _write_and_swap(target, files)
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
    if any(target.iterdir()) and not (target / _MARK).is_file():
        problem = f"the folder is not empty and holds no {_MARK}, so it is not replaced"
        raise SpecError([Problem(str(shown), problem, hint)])


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
