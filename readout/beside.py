"""Loading what is needed later while the scan of the logs leaves Python idle."""

from __future__ import annotations

import contextlib
import importlib
import threading

STATISTICS = ("scipy.special",)
FIGURES = ("matplotlib.backends.backend_svg", "matplotlib.figure")


def load(*modules: str) -> None:
    """Begin to import modules; whoever imports one of them in earnest waits for what is left of it."""

    def import_all() -> None:
        for name in modules:
            # Whatever is wrong with it is said where it is needed.
            with contextlib.suppress(Exception):
                importlib.import_module(name)

    threading.Thread(target=import_all, daemon=True).start()
