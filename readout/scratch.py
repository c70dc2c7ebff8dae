"""A folder for what a command computes on the way."""

from __future__ import annotations

import shutil
import weakref
from pathlib import Path
from tempfile import mkdtemp


class Scratch:
    """A temporary folder that goes when nothing refers to it any more, and when the process ends.

    Attributes:
        path: The folder.
    """

    def __init__(self) -> None:
        self.path = Path(mkdtemp(prefix="readout-"))
        weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)
