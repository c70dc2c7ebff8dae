"""Text that comes from data, made safe to show on one line."""

from __future__ import annotations

import re
import unicodedata
from datetime import timedelta

_BLANKS = re.compile("[\t\n\v\f\r\x1c-\x1f\x85\u2028\u2029]+")
_PLAIN_NAME = re.compile(r"[^\W\d_][\w.\-]{3,}")
_WORDS = frozenset({"both", "each", "else", "false", "less", "more", "most", "none", "null", "only", "other", "others",
                    "same", "some", "than", "that", "them", "then", "this", "true", "with"})  # fmt: skip
_KEPT_FORMAT_CHARACTERS = frozenset("\u200c\u200d")  # the joiners, which several scripts need


def visible(text: str, limit: int | None = None) -> str:
    """Text on one line in which every character can be seen.

    Runs of line breaks and tabs become one space. Control characters (and with them ANSI escapes), bidirectional
    and other invisible format characters, lone surrogates and noncharacters become ``\\x1b``-like escapes. Cut at
    ``limit`` characters, where one is given.
    """
    text = _BLANKS.sub(" ", text)
    if not (text.isascii() and text.isprintable()):
        text = "".join(_shown(character) for character in text)
    return text if limit is None else shorten(text, limit)


def _shown(character: str) -> str:
    point = ord(character)
    hidden = unicodedata.category(character) in ("Cc", "Cf", "Cs") and character not in _KEPT_FORMAT_CHARACTERS
    nonchar = point & 0xFFFE == 0xFFFE or 0xFDD0 <= point <= 0xFDEF
    if not hidden and not nonchar:
        return character
    if point < 0x100:
        return f"\\x{point:02x}"
    return f"\\u{point:04x}" if point < 0x10000 else f"\\U{point:08x}"


def shorten(text: str, limit: int) -> str:
    """Text cut to ``limit`` characters, the last of them an ellipsis where something was cut."""
    return text if len(text) <= limit else text[: limit - 1].rstrip() + "…"


def duration(value: timedelta | None) -> str | None:
    """``2h`` for two hours; None for no time."""
    if not value:
        return None
    seconds = int(value.total_seconds())
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds % size == 0:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def named(label: str) -> str:
    """A label as a sentence names it: in quotes where it would read as a word or number of the sentence, as in
    "Ship 'on'" or "'1' holds 12 blocks"."""
    plain = _PLAIN_NAME.fullmatch(label) is not None and label.lower() not in _WORDS
    return label if plain else f"'{label}'"
