"""What the reduction can run on."""

from __future__ import annotations

from readout.errors import NotAvailableYet


def require_engine(engine: str) -> None:
    """Refuse the engine that this version does not have, before anything is read.

    Raises:
        NotAvailableYet: For every engine but Polars.
    """
    if engine != "polars":
        raise NotAvailableYet(f"--engine {engine}", f"the engine {engine!r}", "use --engine polars")
