"""What reaches the terminal: results on stdout, progress and notes on stderr."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.console import Console

WIDTH = 100
"""Columns of a table where stdout is no terminal, so that a pipe and a CI log always read the same."""


def emit(text: str) -> None:
    """Write ``text`` to stdout, with a closing newline; a reader that has gone away is no error."""
    write(sys.stdout, text if text.endswith("\n") else text + "\n")


def note(text: str) -> None:
    """Write a line to stderr."""
    write(sys.stderr, text + "\n")


def write(stream: TextIO, text: str) -> None:
    """Write and flush; once the pipe is broken the rest goes nowhere, and the exit code still tells the outcome."""
    try:
        stream.write(text)
        stream.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def coloured(stream: TextIO) -> bool:
    """Whether ``stream`` takes colours: NO_COLOR, then FORCE_COLOR, then TERM=dumb, then whether it is a terminal."""
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return interactive(stream)


def interactive(stream: TextIO) -> bool:
    """Whether ``stream`` is a terminal that can move its cursor."""
    return stream.isatty() and os.environ.get("TERM", "").lower() not in ("dumb", "unknown")


def render(draw: Callable[[Console], None]) -> str:
    """What ``draw`` prints on a console made for stdout: fixed width and plain where that is no terminal."""
    from rich.console import Console

    console = Console(
        file=sys.stdout,
        width=None if sys.stdout.isatty() else WIDTH,
        force_terminal=coloured(sys.stdout),
        markup=False,
        highlight=False,
        emoji=False,
    )
    with console.capture() as capture:
        draw(console)
    return capture.get()


@contextmanager
def progress(quiet: bool) -> Iterator[Callable[[str], None]]:
    """A function that says what is being done: a spinner on a terminal, a line each elsewhere, nothing if ``quiet``."""
    if quiet:
        yield lambda message: None
    elif interactive(sys.stderr):
        from rich.console import Console
        from rich.text import Text

        with Console(stderr=True).status("") as status:
            yield lambda message: status.update(Text(message))
    else:
        yield note


def append_step_summary(memo: Callable[[], str]) -> None:
    """Under GitHub Actions, append the memo to the step's summary, within what its size limit leaves."""
    target = os.environ.get("GITHUB_STEP_SUMMARY")
    if os.environ.get("GITHUB_ACTIONS") != "true" or not target:
        return
    from readout.memo.github import SUMMARY_LIMIT, step_summary

    try:
        with open(target, "a", encoding="utf-8") as summary:
            summary.write(step_summary(memo(), SUMMARY_LIMIT - 1 - summary.tell()))
    except OSError as error:
        note(f"warning: the memo could not be added to the step summary: {error.strerror}")
