"""The tail of a shared pool, measured directly: how often and how far its load goes over a stated limit.

A window is a cluster's stretch of ``capacity.window`` and counts as over the limit where the largest ``load`` of its
rows is above it. Loads are as they stood when requests were decided, so a window's maximum rests on the rows that saw
it: fewer rows see a lower maximum, and rows a window are reported by arm. Windows start at 00:00 UTC; one that a
block's start cuts in two counts in either block with its own rows, and rows in the washout show no window. Nothing
here is winsorized or trimmed.
"""

from readout.capacity.summary import summary
from readout.capacity.tables import LOAD, tables
from readout.capacity.windows import FEW, Windows, require_windows, windows_of

__all__ = ["FEW", "LOAD", "Windows", "require_windows", "summary", "tables", "windows_of"]
