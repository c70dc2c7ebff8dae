"""The console script ``readout``: the commands assembled, and what happens around each of them."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import Annotated, NoReturn

import typer

from cli import authoring, experiment
from cli.exits import INTERRUPTED, interrupted, report
from cli.output import emit
from cli.untouched import leave_unset_values_alone

app = typer.Typer(
    name="readout",
    help="From the decision logs of an AI-serving experiment to a decision memo.",
    rich_markup_mode=None,  # Rich's help screens cost as much again as everything else --help loads
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for module in (experiment, authoring):
    for name, command in module.COMMANDS.items():
        app.command(name)(command)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        emit(f"readout {version('policy-readout')}")
        raise typer.Exit()


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", "-V", is_eager=True, callback=_version, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code; every error has been told."""
    as_json = wants_json(arguments)
    try:
        command = leave_unset_values_alone(typer.main.get_command(app))
        code = command.main(args=list(arguments) or ["--help"], prog_name="readout", standalone_mode=False)
        if code == INTERRUPTED:  # typer turns Ctrl-C into this return value
            return report(interrupted(), as_json=as_json)
        return int(code or 0)
    except SystemExit:
        raise
    except BaseException as error:  # a panic of a native library derives from BaseException
        return report(error, as_json=as_json)


def wants_json(arguments: Sequence[str]) -> bool:
    """Whether the line or the environment asks for JSON; read apart from the parser, whose own errors need it."""
    chosen = os.environ.get("READOUT_FORMAT", "")
    for position, argument in enumerate(arguments):
        if argument in ("--format", "-f"):
            chosen = "".join(arguments[position + 1 : position + 2])
        elif argument.startswith("--format="):
            chosen = argument.removeprefix("--format=")
        elif argument.startswith("-f") and not argument.startswith("--"):
            chosen = argument[2:]
    return chosen == "json"


def main() -> NoReturn:
    """Entry point of the console script."""
    _prepare_streams()
    for name in ("SIGTERM", "SIGHUP"):  # a request to stop cleans up as Ctrl-C does
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, _stop)
    sys.exit(run(sys.argv[1:]))


def _stop(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _prepare_streams() -> None:
    """A closed stream takes and forgets; a character that the terminal's encoding lacks is shown escaped."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - lives as long as the process
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


if __name__ == "__main__":
    main()
