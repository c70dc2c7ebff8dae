"""Energy of every request: attributed over the whole log first, then read by arm, as metrics and one by one."""

from readout.energy.joined import attributed, joined_if_asked, promised
from readout.energy.model import energy_model, require_columns
from readout.energy.summary import caveat, notes, summary, tables

__all__ = [
    "attributed",
    "caveat",
    "energy_model",
    "joined_if_asked",
    "notes",
    "promised",
    "require_columns",
    "summary",
    "tables",
]
