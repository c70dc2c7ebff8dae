"""Making text from specs and logs harmless where it is shown.

Names of metrics, arms, clusters and columns, and sentences that hold them, come from data. Each function here makes
such text safe for one medium; what they return is for display, never for parsing back.
"""

from __future__ import annotations

import re
from html import escape as _xml_escape

from readout.text import shorten, visible

_PLAIN_NAME = re.compile(r"[^\W_](?:[\w.\-/:+=% ]*[\w%])?")
_MARKDOWN_ACTIVE = re.compile(r"[\\`*\[\]|~$@]|(?<![^\W_])_|_(?![^\W_])|:(?=//)|(?<=www)\.", re.IGNORECASE)
_MARKDOWN_LEADING = re.compile(r"^(?:[#=>:]|[-+](?=[-+\s]|$)|\d+(?P<mark>[.)])(?=\s|$))")
# A "<" before a blank, a digit, "=" or "." cannot open a tag or an autolink; it stays readable, as in "p < 0.001".
_TAG_OPENING = re.compile(r"<(?![\s\d=.])")
_ENTITY = re.compile(r"&(?=#?\w+;)")


def markdown(text: str) -> str:
    """Prose that renders as its own characters in CommonMark and GitHub's dialect.

    Safe inside a paragraph, a list item and a table cell: no markup, HTML, link, image, automatic link, table cell or
    block can come out of it. Underscores inside words stay bare, since they mean nothing there.
    """
    text = visible(text).strip()
    text = _ENTITY.sub("&amp;", text)
    text = _MARKDOWN_ACTIVE.sub(r"\\\g<0>", text)
    text = _TAG_OPENING.sub("&lt;", text)
    return _MARKDOWN_LEADING.sub(_escape_leading, text)


def _escape_leading(match: re.Match[str]) -> str:
    mark = match["mark"] or match[0]
    return match[0][: -len(mark)] + "\\" + mark


def name(text: str, limit: int = 80) -> str:
    """A name in Markdown: as code where it is a plain word, else as escaped prose, cut at ``limit`` characters."""
    shown = shorten(visible(text).strip(), limit)
    if not shown:
        return "(empty)"
    return f"`{shown}`" if _PLAIN_NAME.fullmatch(shown) and "://" not in shown else markdown(shown)


def terminal(text: str, encoding: str = "utf-8") -> str:
    """Plain text for a terminal of this encoding; give it to Rich as ``Text``, never as markup.

    A CI runner reads commands out of standard output (``::error::``, ``##[error]``): these are broken apart.
    """
    text = visible(text)
    while "::" in text:
        text = text.replace("::", ": :")
    text = text.replace("##[", "## [")
    return text.encode(encoding, "backslashreplace").decode(encoding)


def xml(text: str) -> str:
    """Text for an element or a double-quoted attribute of an SVG file."""
    return _xml_escape(visible(text))


def workflow_message(text: str) -> str:
    """The message of a GitHub workflow command."""
    return visible(text).replace("%", "%25").replace("##[", "## [")


def workflow_property(text: str) -> str:
    """The value of a property of a GitHub workflow command."""
    return workflow_message(text).replace(":", "%3A").replace(",", "%2C")
