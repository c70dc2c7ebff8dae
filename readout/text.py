"""Text that comes from data, made safe to show in one line."""

from __future__ import annotations

import unicodedata


def visible(text: str, limit: int = 200) -> str:
    """``text`` with control, format and line-breaking characters shown as escapes, cut at ``limit`` characters."""
    shown = "".join(
        ch
        if unicodedata.category(ch) not in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")
        else ch.encode("unicode_escape").decode()
        for ch in text
    )
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"
