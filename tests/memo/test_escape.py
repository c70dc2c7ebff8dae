"""Text from data shows as its own characters, and as nothing else, in every medium."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from readout.memo.escape import markdown, name, terminal, workflow_message, workflow_property, xml
from readout.text import shorten, visible

GFM = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
ATTACKS = st.text(st.sampled_from("ab1 \\`*_{}[]()<>#+-.!|~&$@:/=;%\n\t\x1b\u202e\"'"), max_size=40)
PROSE = ATTACKS | st.text(max_size=30)


class _Text(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def _rendered(source: str) -> _Text:
    parsed = _Text()
    parsed.feed(GFM.render(source))
    return parsed


@settings(max_examples=400, deadline=None, derandomize=True)
@given(PROSE)
def test_markdown_renders_as_the_visible_characters_in_a_paragraph(text: str) -> None:
    page = _rendered(f"before\n\n{markdown(text)}\n\nafter")
    assert set(page.tags) == {"p"}
    assert page.text.split() == ["before", *visible(text).split(), "after"]


@settings(max_examples=300, deadline=None, derandomize=True)
@given(PROSE, PROSE)
def test_markdown_stays_within_its_list_item_and_its_table_cell(text: str, other: str) -> None:
    item = _rendered(f"- **Label:** {markdown(text)}\n- {markdown(other)}")
    assert [tag for tag in item.tags if tag != "p"] == ["ul", "li", "strong", "li"]
    cell = _rendered(f"| a | b |\n| --- | --- |\n| {markdown(text)} | {name(other)} |")
    body = [tag for tag in cell.tags if tag != "code"]
    assert body == ["table", "thead", "tr", "th", "th", "tbody", "tr", "td", "td"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ttft_p99 rises, p < 0.001 (5% margin)", "ttft_p99 rises, p < 0.001 (5% margin)"),
        ("0.002", "0.002"),
        ("1. first", "1\\. first"),
        ("-25.3 ms", "-25.3 ms"),
        ("- item", "\\- item"),
        ("# head", "\\# head"),
        ("<b>bold</b>", "&lt;b>bold&lt;/b>"),
        ("see https://e.vil and www.e.vil", "see https\\://e.vil and www\\.e.vil"),
        ("a | b", "a \\| b"),
        ("__init__", "\\_\\_init\\_\\_"),
        ("ping @team", "ping \\@team"),
        ("::error::x", "\\::error::x"),
    ],
)
def test_markdown_escapes_what_would_act_and_leaves_the_rest_readable(text: str, expected: str) -> None:
    assert markdown(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ttft_p99", "`ttft_p99`"),
        ("us-east/1", "`us-east/1`"),
        ("a`b", "a\\`b"),
        ("", "(empty)"),
        ("\n", "(empty)"),
        ("naïve", "`naïve`"),
        ("x" * 100, "`" + "x" * 79 + "…`"),
    ],
)
def test_name_is_code_where_plain(text: str, expected: str) -> None:
    shown = name(text)
    if "…" in expected:
        assert len(shown) <= 82
        assert shown.strip("`").endswith("…")
    else:
        assert shown == expected


def test_visible_shows_what_hides_and_joins_lines() -> None:
    assert visible("a\r\n\tb") == "a b"
    assert visible("\x1b[31mred\x07\x7f\x9b") == "\\x1b[31mred\\x07\\x7f\\x9b"
    assert visible("abc\u202edcb\u2066\u200b\ufeff") == "abc\\u202edcb\\u2066\\u200b\\ufeff"
    assert visible("\ud800\uffff\U000e0041") == "\\ud800\\uffff\\U000e0041"
    assert visible("नमस्ते नी\u200d 漢字 é") == "नमस्ते नी\u200d 漢字 é"


@settings(max_examples=200, deadline=None, derandomize=True)
@given(PROSE)
def test_no_medium_lets_a_control_character_or_a_command_through(text: str) -> None:
    for shown in (terminal(text), workflow_message(text), xml(text), markdown(text), visible(text)):
        assert not any(ord(c) < 32 or 127 <= ord(c) < 160 for c in shown)
        shown.encode()
    assert "::" not in terminal(text)
    assert not workflow_property(text).count(":")
    assert "##[" not in terminal(text) + workflow_message(text) + markdown(text)
    assert "<" not in xml(text)


def test_terminal_keeps_to_an_encoding_that_lacks_characters() -> None:
    assert terminal("é – 漢", "ascii") == "\\xe9 \\u2013 \\u6f22"
    assert terminal("::error::x ##[group]y") == ": :error: :x ## [group]y"
    assert terminal(":::x") == ": : :x"


def test_workflow_commands_cannot_be_closed_or_extended_by_their_text() -> None:
    assert workflow_message("5 %\n::error::x") == "5 %25 ::error::x"
    assert workflow_property("a:b,c\r%") == "a%3Ab%2Cc %25"


def test_shorten_counts_the_ellipsis() -> None:
    assert shorten("abcdef", 6) == "abcdef"
    assert shorten("abcdefg", 6) == "abcde…"


def test_a_label_is_quoted_where_a_sentence_would_misread_it() -> None:
    from readout.text import named

    assert [named(x) for x in ("on", "off", "1", "A", "new", "None", "two words", "")] == [
        "'on'", "'off'", "'1'", "'A'", "'new'", "'None'", "'two words'", "''",
    ]  # fmt: skip
    assert [named(x) for x in ("premium", "control", "v2.1-fast")] == ["premium", "control", "v2.1-fast"]


def test_a_colon_in_an_arm_does_not_part_the_headline() -> None:
    from readout.memo.words import opening
    from readout.results import Decision

    headline = "Ship 'canary: 5%': latency -3 %."
    decision = Decision("ship", "canary: 5%", {}, "all_clear", headline, (), (), (), "")
    assert opening(decision) == ("Ship 'canary: 5%':", "latency -3 %.")
