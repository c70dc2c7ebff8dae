"""From `logs:` of the spec to one lazy frame with canonical columns. Nothing is read but footers and a small pilot."""

from readout.logs.frame import Logs, open_logs
from readout.logs.sources import Beside, Source, find_source

__all__ = ["Beside", "Logs", "Source", "find_source", "open_logs"]
