"""YAML 1.2 core scalars, marks, and texts that are not YAML."""

from __future__ import annotations

import math

import pytest

from readout.spec.yaml import MAX_DEPTH, YamlSyntaxError, parse


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True),
        ("False", False),
        ("on", "on"),
        ("yes", "yes"),
        ("n", "n"),
        ("~", None),
        ("null", None),
        ("none", "none"),
        ("", None),
        ("010", 10),
        ("-7", -7),
        ("0o17", 15),
        ("0xfF", 255),
        ("0b11", "0b11"),
        ("1_000", "1_000"),
        ("1e-3", 0.001),
        ("1.", 1.0),
        (".5", 0.5),
        ("-.inf", -math.inf),
        ("20:30", "20:30"),
        ("2026-10-05", "2026-10-05"),
        ("2026-10-05T00:00Z", "2026-10-05T00:00Z"),
        ("'5'", "5"),
        ("!!str 5", "5"),
        ("!!int '5'", 5),
        ("9" * 5000, "9" * 5000),
    ],
)
def test_scalars_follow_yaml_1_2(text: str, value: object) -> None:
    read = parse(f"key: {text}").data["key"]
    assert read == value
    assert type(read) is type(value)


def test_nan_is_a_float() -> None:
    assert math.isnan(parse("key: .nan").data["key"])


def test_marks_say_where_keys_and_values_stand() -> None:
    marks = parse("logs:\n  path: [a,\n    b]\n").marks
    assert marks[("logs", "path")].key == (2, 3)
    assert marks[("logs", "path")].value == (2, 9)
    assert marks[("logs", "path", 1)].value == (3, 5)


def test_keys_are_labels() -> None:
    assert parse("{0: a, true: b, 1.0: c}").data == {"0": "a", "true": "b", "1": "c"}


def test_every_duplicate_key_is_found_with_both_lines() -> None:
    document = parse("a: 1\nb:\n  c: 2\n  c: 3\na: 4\na: 5\n")
    assert document.data == {"a": 1, "b": {"c": 2}}
    assert [(f.path, f.at, f.message) for f in document.findings] == [
        (("b", "c"), (4, 3), "duplicate key: line 4 gives again what line 3 gave"),
        (("a",), (5, 1), "duplicate key: line 5 gives again what line 1 gave"),
        (("a",), (6, 1), "duplicate key: line 6 gives again what line 1 gave"),
    ]


def test_a_number_and_its_text_are_the_same_key() -> None:
    assert len(parse('{0: 1, "0": 2}').findings) == 1


def test_anchors_are_expanded_and_merge_keys_are_keys() -> None:
    assert parse("a: &x {k: 1}\nb: *x\nc: {<<: *x}").data == {"a": {"k": 1}, "b": {"k": 1}, "c": {"<<": {"k": 1}}}


@pytest.mark.parametrize(
    ("text", "message", "line", "column"),
    [
        ("a:\n\tb: 1", "a tab stands where YAML wants spaces", 2, 1),
        ("a: 1\n---\nb: 2", "a second document starts here", 2, 1),
        ("a: b: c", "check the indentation", 1, 5),
        ("a: [1, 2", "expected ',' or ']'", 1, 9),
        ("a: *nowhere", "undefined alias 'nowhere'", 1, 4),
        ("a: \x01", "U+0001", 1, 4),
        ("? [a]\n: 1", "a key must be a plain word", 1, 3),
        ("a: &x [*x]", "an alias stands inside its own anchor", 1, 4),
        ("a: " + "[" * 500, f"nested more than {MAX_DEPTH} levels", 1, MAX_DEPTH + 3),
        ("- " * 100_000 + "a", f"nested more than {MAX_DEPTH} levels", 1, 2 * MAX_DEPTH + 1),
    ],
)
def test_what_cannot_be_read_says_where(text: str, message: str, line: int, column: int) -> None:
    with pytest.raises(YamlSyntaxError) as error:
        parse(text)
    assert message in error.value.message
    assert (error.value.line, error.value.column) == (line, column)


def test_a_billion_laughs_end_soon() -> None:
    text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 10)
    )
    with pytest.raises(YamlSyntaxError, match="aliases expand to more than"):
        parse(text)


@pytest.mark.parametrize("tag", ["!!python/object:os.system", "!!timestamp", "!mine", "!!set"])
def test_other_tags_are_not_read(tag: str) -> None:
    value = "{a: 1}" if tag == "!!set" else "2026-01-01"
    (finding,) = parse(f"a: {tag} {value}").findings
    assert finding.at == (1, 4)
    assert "is not read" in finding.message


def test_an_explicit_tag_is_believed_only_where_it_fits() -> None:
    (finding,) = parse("a: !!int five").findings
    assert finding.message == "five is not a YAML int"
