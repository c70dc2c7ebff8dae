"""From an exception to what a person reads and to the exit code.

0 a readout was written, 1 its action is in ``--fail-on``, 2 the command line or the spec is wrong, 3 the logs cannot
support the readout, 70 a fault of readout's own, 130 interrupted.
"""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections.abc import Sequence

import typer

from cli.output import coloured, emit, note
from readout.errors import Problem, ReadoutError, SpecError
from readout.text import visible

INTERRUPTED = 130
LINE_LIMIT = 2_000
_REFUSED_BY_SYSTEM = {
    errno.EACCES, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EISDIR, errno.EMFILE, errno.ENAMETOOLONG,
    errno.ENOMEM, errno.ENOSPC, errno.ENOTDIR, errno.EPERM, errno.EROFS,
}  # fmt: skip


class Interrupted(ReadoutError):
    """Ctrl-C or a request to terminate (exit code 130)."""

    code = INTERRUPTED


def interrupted() -> Interrupted:
    """The error of a command that was stopped from outside."""
    return Interrupted([Problem("readout", "interrupted; nothing was left half-written")])


def as_readout_error(error: BaseException) -> ReadoutError:
    """Any exception as an error with problems and an exit code."""
    if isinstance(error, ReadoutError):
        return error
    if isinstance(error, typer.TyperException):
        return _usage_error(error)
    if isinstance(error, (KeyboardInterrupt, typer.Abort)):
        return interrupted()
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno in _REFUSED_BY_SYSTEM):
        return _system_error(error)
    return ReadoutError(
        [
            Problem(
                "readout",
                f"a fault of readout's own, not of your spec or logs ({type(error).__name__}: {error})",
                "run the command again with READOUT_DEBUG=1 and please report it with the command and the traceback",
            )
        ]
    )


def report(error: BaseException, *, as_json: bool) -> int:
    """Tell ``error`` on stderr, and as ``readout-error/1`` on stdout if ``as_json``; returns the exit code."""
    told = as_readout_error(error)
    if told.code == ReadoutError.code and os.environ.get("READOUT_DEBUG", "") not in ("", "0"):
        note("".join(traceback.format_exception(error)).rstrip())
    note(error_text(told.problems, colour=coloured(sys.stderr)))
    if as_json:
        from readout.memo.document import error_json

        emit(error_json(told))
    return told.code


def error_text(problems: Sequence[Problem], *, colour: bool) -> str:
    """The problems for a terminal: where, what, the source line with its caret, the hint."""
    lines: list[str] = []
    for problem in problems:
        where = f"{visible(problem.where, LINE_LIMIT)}: " if problem.where else ""
        lines.append(_paint("error:", "1;31", colour) + f" {where}{visible(problem.message, LINE_LIMIT)}")
        lines += ["    " + _paint_caret(visible(line, LINE_LIMIT), colour) for line in problem.source.splitlines()]
        if problem.hint:
            lines.append(_paint("  hint:", "1;36", colour) + f" {visible(problem.hint, LINE_LIMIT)}")
    if len(problems) > 1:
        lines.append(f"{len(problems)} problems")
    return "\n".join(lines)


def _paint(text: str, code: str, colour: bool) -> str:
    return f"\x1b[{code}m{text}\x1b[0m" if colour else text


def _paint_caret(line: str, colour: bool) -> str:
    return _paint(line, "1;31", colour) if line.strip() and not line.strip(" ^~") else line


def _usage_error(error: typer.TyperException) -> SpecError:
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "readout"
    message = error.format_message().removesuffix(".")
    return SpecError([Problem(command, message[:1].lower() + message[1:], f"see: {command} --help")])


def _system_error(error: MemoryError | OSError) -> ReadoutError:
    """The machine, not readout, refused: no traceback helps, freeing or allowing something does."""
    if isinstance(error, MemoryError):
        return ReadoutError([Problem("readout", "the machine ran out of memory", "use a machine with more of it")])
    where = str(error.filename) if error.filename else "readout"
    reason = (error.strerror or type(error).__name__).lower()
    return ReadoutError([Problem(where, f"the system refused: {reason}", "free or allow it, or name another --out")])
