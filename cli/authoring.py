"""Commands that make something to start from: init, schema, simulate."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from cli.options import Quiet, Seed, parse_count, parse_days
from cli.output import emit, note


def init(
    design: Annotated[
        str, typer.Option("--design", envvar="READOUT_DESIGN", metavar="KIND", help="Kind of design.")
    ] = "user_rct",
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE", dir_okay=False, help="Write here, not to stdout.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file.")] = False,
) -> None:
    """Print a commented starter spec."""
    from readout.spec.starter import starter

    text = starter(design)
    if out is None:
        emit(text)
        return
    try:
        with out.open("w" if force else "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise typer.BadParameter(f"'{out}' exists; --force overwrites it", param_hint="--out") from None
    except FileNotFoundError:
        raise typer.BadParameter(f"there is no folder '{out.parent}'", param_hint="--out") from None
    note(f"wrote {out}; next: readout check {out}")


def schema() -> None:
    """Print the JSON Schema of the spec."""
    import json

    from readout.spec.schema import json_schema

    emit(json.dumps(json_schema(), indent=2))


def simulate(
    world: Annotated[
        str,
        typer.Argument(
            metavar="WORLD",
            help="router_switchback, router_rct, router_rollout, router_cache, routed_users, routed_users_unlogged "
            "or router_explored.",
        ),
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", envvar="READOUT_OUT", metavar="DIR", file_okay=False, help="Folder to write.")
    ],
    seed: Seed = None,
    days: Annotated[
        float | None,
        typer.Option("--days", envvar="READOUT_DAYS", metavar="DAYS", parser=parse_days, help="Length of the log."),
    ] = None,
    requests: Annotated[
        int | None,
        typer.Option("--requests", envvar="READOUT_REQUESTS", metavar="N", parser=parse_count, help="About how many."),
    ] = None,
    trace: Annotated[
        Path | None,
        typer.Option("--trace", envvar="READOUT_TRACE", metavar="FILE", help="Arrivals and tokens of a real trace."),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Write logs whose true effect is known.

    Simulates two fleets with continuous batching; writes the logs, truth.json and a ready spec.
    """
    from readout.simulate import simulate

    spec = simulate(world, out, seed=seed or 0, trace=trace, days=days, requests=requests)
    if not quiet:
        note(f"wrote {spec.parent}; next: readout run {spec}")


COMMANDS: dict[str, Callable[..., None]] = {"simulate": simulate, "init": init, "schema": schema}
