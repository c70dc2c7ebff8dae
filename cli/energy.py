"""Commands of the energy of requests: attribute, receipt."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.options import Format, Out, Quiet, Seed, Set, SpecArgument
from cli.output import append_step_summary, emit, note, progress, render

MEMOS = Path("memos")
Game = Annotated[
    str | None,
    typer.Option(
        "--game", envvar="READOUT_GAME", metavar="MODULE:FUNCTION",
        help="Sample the shares of this game, function(batch, coalitions) -> joules, instead of the energy model's.",
    ),
]  # fmt: skip


def attribute(
    spec: SpecArgument,
    out: Out = MEMOS,
    output_format: Format = "text",
    fit: Annotated[
        bool, typer.Option("--fit", envvar="READOUT_FIT", help="Fit an energy model to the measured batches instead.")
    ] = False,
    game: Game = None,
    overrides: Set = None,
    seed: Seed = None,
    quiet: Quiet = False,
) -> None:
    """Share the energy of every batch among its requests.

    Writes OUT/NAME/attribution/shares.parquet, one row a request, and prints the sums. Needs only logs and attribution
    of the spec. With --fit it writes energy_model.yaml there, fitted to the measured energy.
    """
    from readout.energy import command, fitted, fitting, shown

    if fit:
        if game is not None:
            raise typer.BadParameter("a game named by --game has no energy model to fit", param_hint="--fit")
        with progress(quiet) as say:
            found, path = fitting.fit_model(spec, overrides=overrides or (), out=out, seed=seed, progress=say)
        if output_format == "text":
            emit(render(lambda console: fitted.print_fit(found, console)))
        else:
            emit(fitted.shown(found, output_format))
        if not quiet:
            note(f"energy model: {path}")
        return
    with progress(quiet) as say:
        report, path = command.attribute(spec, overrides=overrides or (), out=out, game=game, seed=seed, progress=say)
    if output_format == "text":
        emit(render(lambda console: shown.print_report(report, console)))
    else:
        emit(shown.shown(report, output_format))
    append_step_summary(lambda: shown.page(report))
    if not quiet:
        note(f"shares: {path}")


def receipt(
    spec: SpecArgument,
    request: Annotated[str, typer.Argument(metavar="REQUEST_ID", help="The request's id in the logs.")],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", envvar="READOUT_OUT", metavar="DIR", file_okay=False,
            help="Also write it where the lineage_url of DIR/NAME/attribution/shares.parquet points to.",
        ),
    ] = None,
    game: Game = None,
    overrides: Set = None,
    output_format: Format = "json",
    seed: Seed = None,
    quiet: Quiet = False,
) -> None:  # fmt: skip
    """Print the lineage of one request's energy as JSON-LD, whatever the format."""
    from readout.energy import receipts

    text, path = receipts.receipt(spec, request, overrides=overrides or (), game=game, seed=seed, out=out)
    emit(text)
    if path is not None and not quiet:
        note(f"receipt: {path}")
