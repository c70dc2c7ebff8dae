"""Where an attribution's files stand, and how one is written whole or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
from collections.abc import Callable
from pathlib import Path

import polars as pl

from readout.errors import Problem, SpecError
from readout.spec.model import Spec

SHARES, MODEL, RECEIPTS = "shares.parquet", "energy_model.yaml", "receipts"
_CLEAN = r"^[A-Za-z0-9_-][A-Za-z0-9._-]{0,119}$"
_LONGEST = 120


def folder(out: Path, spec: Spec) -> Path:
    """The folder of an attribution: it depends on no time, as all of the log is attributed."""
    return out / spec.name / "attribution"


def receipt_url(request: str) -> str:
    """Where a request's receipt stands, relative to the file of shares; a path and a URL alike.

    What is no letter, digit, dot, hyphen or underscore becomes ``=2F``-like bytes; a long id is cut and hashed.
    """
    name = "".join(
        chr(byte) if re.match(rb"[A-Za-z0-9_-]", bytes([byte])) or (byte == 0x2E and i) else f"={byte:02X}"
        for i, byte in enumerate(request.encode("utf-8", "surrogatepass"))
    )
    if len(name) > _LONGEST:
        name = f"{name[:80]}={hashlib.sha256(request.encode('utf-8', 'surrogatepass')).hexdigest()[:32]}"
    return f"{RECEIPTS}/{name}.jsonld"


def receipt_urls(requests: pl.Series) -> pl.Series:
    """`receipt_url` of a column of text; null for null."""
    clean = requests.str.contains(_CLEAN)
    urls = f"{RECEIPTS}/" + requests + ".jsonld"
    odd = (~clean).fill_null(False).arg_true()
    return urls.scatter(odd, [receipt_url(request) for request in requests.gather(odd)]) if len(odd) else urls


def write_whole(path: Path, fill: Callable[[Path], None]) -> None:
    """Let ``fill`` write a file beside ``path`` and rename it into place; on any failure nothing is left behind.

    Raises:
        SpecError: The folder cannot be written.
    """
    parent = path.parent
    missing = [place for place in (parent, *parent.parents) if not place.exists()]
    draft = parent / f".{path.name}.{secrets.token_hex(4)}"
    try:
        try:
            parent.mkdir(parents=True, exist_ok=True)
            fill(draft)
            os.replace(draft, path)
        except BaseException:
            draft.unlink(missing_ok=True)
            for made in missing:
                with contextlib.suppress(OSError):
                    made.rmdir()
            raise
    except OSError as error:
        reason = error.strerror or str(error)
        hint = "choose a folder that can be written with --out"
        raise SpecError([Problem(str(path), f"cannot be written: {reason}", hint)]) from error


def write_text(path: Path, text: str) -> None:
    """Write a text whole."""

    def fill(draft: Path) -> None:
        draft.write_text(text, encoding="utf-8", newline="\n")

    write_whole(path, fill)
