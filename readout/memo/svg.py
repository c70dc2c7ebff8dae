"""From a Matplotlib figure to an SVG file: deterministic, accessible, and safe with any text."""

from __future__ import annotations

import io
import warnings
from bisect import bisect_left
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from readout.memo.escape import xml
from readout.text import shorten, visible

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH: Final = 8.0  # inches; 768 CSS pixels
_LONGEST = 120  # characters of a text in a figure
INK: Final = "#222222"
MUTED: Final = "#5f5f5f"
RULE: Final = "#bdbdbd"
# Okabe and Ito's palette, which stays apart under the common colour-vision deficiencies.
BLUE: Final = "#0072B2"
VERMILLION: Final = "#D55E00"
PALETTE: Final = (BLUE, VERMILLION, "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS: Final = ("o", "s", "^", "D", "v", "P")

_STYLE: Final[dict[str, Any]] = {
    "svg.hashsalt": "readout",  # element ids from the content, not from the clock
    "svg.fonttype": "none",  # text stays text: it can be read aloud, searched, and drawn in any script
    "text.parse_math": False,  # a "$" in a name is a dollar sign
    "font.family": ["sans-serif"],
    "font.sans-serif": ["DejaVu Sans", "Verdana", "Arial"],
    "font.size": 9.0,
    "text.color": INK,
    "axes.edgecolor": RULE,
    "axes.labelcolor": MUTED,
    "axes.unicode_minus": False,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "timezone": "UTC",
}


def render(build: Callable[[], Figure], title: str, description: str) -> bytes:
    """Build a figure under readout's style and give its SVG, with title and description for screen readers."""
    import matplotlib

    with matplotlib.rc_context(), warnings.catch_warnings():
        # Layout measures text with the bundled font, which lacks some scripts; the viewer's fonts draw them.
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from font", category=UserWarning)
        settings: Any = matplotlib.rcParams
        settings.update(matplotlib.rcParamsDefault)
        settings.update(_STYLE)
        buffer = io.StringIO()
        nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
        build().savefig(buffer, format="svg", metadata=nothing, facecolor="white")
    return _described(buffer.getvalue(), title, description).encode()


def _described(svg: str, title: str, description: str) -> str:
    start = svg.index("<svg")
    end = svg.index(">", start) + 1
    opening = svg[start : end - 1] + ' role="img" aria-labelledby="title description">'
    texts = f'\n <title id="title">{xml(title)}</title>\n <desc id="description">{xml(description)}</desc>'
    return svg[:start] + opening + texts + svg[end:]


def fit(text: str, inches: float, size: float = 9.0, weight: str = "normal") -> str:
    """Text for a figure: every character visible, shortened until it is at most ``inches`` wide."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    properties = FontProperties(size=size, weight=weight)
    shown = shorten(visible(text), _LONGEST)

    def too_wide(limit: int) -> bool:
        width, _, _ = text_to_path.get_text_width_height_descent(shorten(shown, limit), properties, ismath=False)
        return bool(width > 72 * inches)

    lengths = range(1, len(shown) + 1)
    return shorten(shown, max(bisect_left(lengths, True, key=too_wide), 1)) if shown else ""
