"""Commands that take an experiment's spec: run, check, demo, plan."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from cli import energy
from cli.options import AsOf, Engine, FailOn, Format, NoFigures, Out, Quiet, Seed, Set, SpecArgument
from cli.output import append_step_summary, emit, note, progress, render
from readout.engines import require_engine

if TYPE_CHECKING:
    from readout.results import Readout

MEMOS = Path("memos")


def run(
    spec: SpecArgument,
    out: Out = MEMOS,
    as_of: AsOf = None,
    output_format: Format = "text",
    fail_on: FailOn = None,
    overrides: Set = None,
    seed: Seed = None,
    engine: Engine = "polars",
    no_figures: NoFigures = False,
    quiet: Quiet = False,
) -> None:
    """Read the logs and write the decision memo.

    Writes memo.md, readout.json and figures/ to OUT/NAME/DATE and prints the effects and the decision.
    """
    from readout import pipeline

    require_engine(engine)
    with progress(quiet) as say:
        readout, folder = pipeline.run(
            spec, overrides=overrides or (), out=out, as_of=as_of, seed=seed, figures=not no_figures, engine=engine,
            progress=say,
        )  # fmt: skip
    _show(readout, output_format)
    if not quiet:
        note(f"memo: {folder / 'memo.md'}")
    if fail_on and readout.decision.action in fail_on:
        raise typer.Exit(1)


def check(
    spec: SpecArgument,
    as_of: AsOf = None,
    output_format: Format = "text",
    fail_on: FailOn = None,
    overrides: Set = None,
    seed: Seed = None,
    engine: Engine = "polars",
    quiet: Quiet = False,
) -> None:
    """Check spec and logs; no effect is computed.

    Safe while the experiment runs. With --fail-on the exit code is 1 if a failed check asks for one of the actions.
    """
    from readout import pipeline
    from readout.memo import checked, terminal

    require_engine(engine)
    with progress(quiet) as say:
        report = pipeline.check(spec, overrides=overrides or (), as_of=as_of, seed=seed, engine=engine, progress=say)
    if output_format == "text":
        emit(render(lambda console: terminal.print_checks(report, console)))
    else:
        emit(checked.shown(report, output_format))
    asked = {found.action for found in report.checks if found.status == "fail"}
    if fail_on and asked & fail_on:
        raise typer.Exit(1)


def demo(
    out: Out = MEMOS,
    as_of: AsOf = None,
    output_format: Format = "text",
    seed: Seed = None,
    no_figures: NoFigures = False,
    quiet: Quiet = False,
) -> None:
    """Run the bundled switchback example."""
    from readout.demo import spec_path

    run(spec_path(), out, as_of, output_format, None, None, seed, "polars", no_figures, quiet)


def plan(
    spec: SpecArgument,
    out: Out = MEMOS,
    as_of: AsOf = None,
    output_format: Format = "text",
    overrides: Set = None,
    seed: Seed = None,
    quiet: Quiet = False,
) -> None:
    """Before the experiment: power, block length, and an assignment.

    Compares designs on past logs, simulates the best, writes plan.md, plan.json and the assignment to OUT/NAME/DATE.
    """
    from readout.planning import document, terminal
    from readout.planning.plan import plan as make

    with progress(quiet) as say:
        report, folder = make(spec, overrides=overrides or (), out=out, as_of=as_of, seed=seed, progress=say)
    if output_format == "text":
        emit(render(lambda console: terminal.print_plan(report, console)))
    else:
        emit(document.shown(report, output_format))
    append_step_summary(lambda: document.markdown(report))
    if not quiet:
        note(f"plan: {folder / 'plan.md'}")


def _show(readout: Readout, output_format: str) -> None:
    from readout.memo import document, github, markdown, terminal

    if output_format == "json":
        emit(document.to_json(readout))
    elif output_format == "markdown":
        emit(markdown.memo(readout))
    elif output_format == "github":
        emit("\n".join(github.annotations(readout)))
    else:
        emit(render(lambda console: terminal.print_readout(readout, console)))
    append_step_summary(lambda: markdown.memo(readout))


COMMANDS: dict[str, Callable[..., None]] = {
    "run": run,
    "check": check,
    "plan": plan,
    "attribute": energy.attribute,
    "receipt": energy.receipt,
    "demo": demo,
}
