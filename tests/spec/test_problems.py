"""What an author of a spec reads when it is wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from readout.errors import Problem, SpecError
from readout.spec import load

Asker = Callable[..., list[Problem]]


def only(found: list[Problem]) -> Problem:
    assert len(found) == 1, found
    return found[0]


def test_an_unknown_key_has_a_place_a_caret_and_a_suggestion(problems: Asker, small: str) -> None:
    found = only(problems(small + "    colum: x\n"))
    assert found.where == "spec.yaml:13:5"
    assert found.message == "metrics.ttft.colum: unknown key; did you mean 'column'?"
    assert found.source == "    colum: x\n    ^"
    assert "minimum_effect" in found.hint


def test_a_bad_value_has_its_caret_below_the_value(problems: Asker, small: str) -> None:
    found = only(problems(small.replace("primary", "primry")))
    assert found.where == "spec.yaml:11:11"
    assert found.message == (
        "metrics.ttft.role: expected one of primary, secondary, guardrail, mechanism, surrogate, long_run, "
        "got 'primry'; did you mean 'primary'?"
    )
    assert found.source == "    role: primry\n          ^"


def test_a_missing_key_stands_at_its_parent(problems: Asker, small: str) -> None:
    found = only(problems(small.replace("  shared_state: false\n", "")))
    assert (found.where, found.message) == ("spec.yaml:3:1", "design.shared_state: needed, and not there")
    assert "queue, cache or fleet" in found.hint


def test_everything_wrong_is_said_at_once_in_the_order_of_the_file(problems: Asker) -> None:
    text = """\
version: 2
decision: {alpha: 5, looks: on}
logs: {pth: x, timezone: Mars/Olympus}
design: {kind: switchback, control: a, treatment: b, block: 5h, washout: 20}
metrics:
  ttft: {column: x, expr: y, role: primary, better: lower}
  ttft: {column: x, better: lower}
rollback: [{metric: ttf, above: 1}]
checks: {srmm: {threshold: 1}}
sgments: []
"""
    assert [(p.where, p.message) for p in problems(text, "report.figures=maybe")] == [
        ("spec.yaml:1:10", "version: expected 1, got 2"),
        ("spec.yaml:2:19", "decision.alpha: expected a number below 1, got 5"),
        ("spec.yaml:2:29", "decision.looks: expected one of fixed, sequential, got 'on'"),
        ("spec.yaml:3:1", "logs.path: needed, and not there"),
        ("spec.yaml:3:8", "logs.pth: unknown key; did you mean 'path'?"),
        ("spec.yaml:3:26", "logs.timezone: expected a time zone such as UTC or Europe/Berlin, got 'Mars/Olympus'"),
        ("spec.yaml:4:61", "design.block: expected a length that divides 24 h, or whole days, got '5h'"),
        ("spec.yaml:4:74", "design.washout: expected a duration such as 30s, 20m, 2h or 7d, got 20"),
        ("spec.yaml:6:3", "metrics.ttft: needs one of column, expr, or numerator with denominator; got column, expr"),
        ("spec.yaml:7:3", "metrics.ttft: duplicate key: line 7 gives again what line 6 gave"),
        ("spec.yaml:8:21", "rollback.0.metric: no metric is named 'ttf'; did you mean 'ttft'?"),
        ("spec.yaml:9:10", "checks.srmm: unknown check; did you mean 'srm'?"),
        ("spec.yaml:10:1", "sgments: unknown key; did you mean 'segments'?"),
        ("--set report.figures", "report.figures: expected true or false, got 'maybe'"),
    ]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("current", "premium", "design.treatment: 'premium' is the control too; expected another arm"),
        ("kind: user_rct", "kind: user_rtc", "design.kind: expected one of user_rct, "),
        ("  kind: user_rct\n", "", "design.kind: needed, and not there"),
        (
            "  shared_state",
            "  block: 2h\n  shared_state",
            "design.block: unknown key for user_rct; it belongs to switchback",
        ),
        ("shared_state: false", "shared_state: no", "design.shared_state: expected true or false, got 'no'"),
        ("treatment: premium", "treatment: []", "design.treatment: expected a label or a list of labels, got a list"),
        ("treatment: premium", "treatment: [b, b]", "design.treatment: 'b' stands twice in the list"),
        ("treatment: premium", "treatment:", "design.treatment: expected a label, got nothing"),
        (
            "premium",
            "premium\n  split: {current: 1, prem: 1}",
            "design.split.prem: not an arm of the design; did you mean",
        ),
        ("premium", "premium\n  split: {current: 1}", "design.split: lacks the arm 'premium'"),
        ("premium", "premium\n  split: {current: 0, premium: 0}", "design.split: expected shares of at least 0"),
        ("column: ttft_ms", "column: 5", "metrics.ttft.column: expected text, got 5"),
        ("column: ttft_ms", "column: ''", "metrics.ttft.column: expected text, got ''"),
        ("column: ttft_ms", "numerator: a", "metrics.ttft.denominator: needed, and not there"),
        (
            "column: ttft_ms",
            "where: a > 1",
            "metrics.ttft: needs one of column, expr, or numerator with denominator; got none",
        ),
        ("    better: lower\n", "", "metrics.ttft.better: needed, and not there"),
        ("role: primary", "role: secondary", "metrics: none of them is primary"),
        (
            "better: lower",
            "better: lower\n    quantile: 99",
            "metrics.ttft.quantile: expected a number below 1, got 99",
        ),
        ("better: lower", "better: lower\n    per: user", "metrics.ttft.per: expected unit, got 'user'"),
        (
            "better: lower",
            "better: lower\n    minimum_effect: +5%",
            "metrics.ttft.minimum_effect: the sign of +5% contradicts",
        ),
        (
            "better: lower",
            "better: lower\n    minimum_effect: +25",
            "metrics.ttft.minimum_effect: the sign of +25 contradicts",
        ),
        (
            "better: lower",
            "better: lower\n    margin: -5%",
            "metrics.ttft.margin: the sign of -5% contradicts better: lower",
        ),
        (
            "better: lower",
            "better: higher\n    margin: +5",
            "metrics.ttft.margin: the sign of +5 contradicts better: higher",
        ),
        (
            "better: lower",
            "better: lower\n    margin: 5 percent",
            "metrics.ttft.margin: expected a size of effect, absolute",
        ),
        ("better: lower", "better: lower\n    margin: .nan", "metrics.ttft.margin: expected a size of effect"),
        (
            "better: lower",
            "better: lower\n    robust: {method: catoni, quantile: 0.9}",
            "metrics.ttft.robust.quantile: unknown key",
        ),
        ("path: logs/*.parquet", "path: {a: b}", "logs.path: expected text or a list of text, got a mapping"),
        ("path: logs/*.parquet", "path: []", "logs.path: expected at least 1 item, got none"),
        ("logs/*.parquet", "a\n  last: 7d\n  start: 2026-10-05", "logs.start: does not combine with last"),
        ("logs/*.parquet", "a\n  start: 2026-10-05\n  end: 2026-10-05", "logs.end: expected a time after logs.start"),
        ("logs/*.parquet", "a\n  start: 5 Oct", "logs.start: expected a time such as 2026-10-05T00:00Z"),
        (
            "logs/*.parquet",
            "a\n  start: 2026-02-30",
            "logs.start: expected a time that the calendar has, got '2026-02-30'",
        ),
        ("logs/*.parquet", "a\n  start: 0001-01-01T00:00+14:00", "logs.start: expected a time that the calendar has"),
        (
            "logs/*.parquet",
            "a\n  start: 3",
            "logs.start: expected a time such as 2026-10-05T00:00Z, got 3; integers are for",
        ),
        ("logs/*.parquet", "a\n  last: 0d", "logs.last: expected a duration above zero, got '0d'"),
        ("logs/*.parquet", "a\n  columns: [x]", "logs.columns: expected a mapping of keys, got a list"),
        ("logs:\n  path: logs/*.parquet\n", "", "logs: needed, and not there"),
        ("logs:\n  path: logs/*.parquet\n", "logs:\n", "logs: expected a mapping of keys, got nothing"),
    ],
)
def test_each_fault_is_named(problems: Asker, small: str, old: str, new: str, message: str) -> None:
    assert old in small
    found = only(problems(small.replace(old, new, 1)))
    assert found.message.startswith(message)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("estimator: {method: aipw}", "estimator.method: expected auto or a method of user_rct, got 'aipw'"),
        (
            "estimator: {method: cupd}",
            "estimator.method: expected auto or a method of user_rct, got 'cupd'; did you mean 'cuped'?",
        ),
        (
            "estimator: {varance: CR2}",
            "estimator.varance: unknown key for difference_in_means; did you mean 'variance'?",
        ),
        ("estimator: {variance: HC1}", "estimator.variance: expected CR1 or CR2, got 'HC1'"),
        ("estimator: 5", "estimator: expected auto, a name, or {method: NAME, …}, got 5"),
        ("name: a/b", "name: expected a name that can be a folder, got 'a/b'"),
        ("name: ..", "name: expected a name that can be a folder, got '..'"),
        ("segments: [tier, tier]", "segments.1: a second segment is named 'tier'"),
        ("segments: [{name: x}]", "segments.0: needs either column or where beside its name"),
        ("segments: tier", "segments: expected a list, got 'tier'"),
        ("events: [{at: 2026-10-09, until: 2026-10-08, name: x}]", "events.0.until: expected a time after `at`"),
        ("economics: {}", "economics: needs value, cost, or both"),
        (
            "economics: {value: {metric: tft, usd: 1}}",
            "economics.value.metric: no metric is named 'tft'; did you mean 'ttft'?",
        ),
        ("economics: {cost: {usd: 1}}", "economics.cost: needs either column or metric"),
        ("economics: {cost: {column: x, usd: .inf}}", "economics.cost.usd: expected a finite number, got inf"),
        ("capacity: {load: x, limit: 0}", "capacity.limit: expected a number above 0, got 0"),
        ("capacity: {load: x, limit: 9, outcomes: [e]}", "capacity.outcomes.0: no metric is named 'e'"),
        ("rollback: [{metric: ttft}]", "rollback.0: needs either above or no_movement: true"),
        ("rollback: [{above: 1}]", "rollback.0: needs either metric or expr"),
        (
            "rollback: [{metric: ttft, no_movement: true, where: a}]",
            "rollback.0.where: does not combine with no_movement",
        ),
        (
            "rollback: [{metric: ttft, above: 1, min_rows: 0}]",
            "rollback.0.min_rows: expected a number of at least 1, got 0",
        ),
        ("surrogate: {ladder: {system: ttf}}", "surrogate.ladder.system: no metric is named 'ttf'"),
        (
            "surrogate: {ladder: {sistem: ttft}}",
            "surrogate.ladder.sistem: expected one of system, session, user, business",
        ),
        ("attribution: {columns: {btch: b}}", "attribution.columns.btch: unknown key; did you mean 'batch'?"),
        ("attribution: {columns: {}, carbon: {}}", "attribution.carbon: needs either g_per_kwh or column"),
        ("decision: {frame: 5}", "decision.frame: expected one of ship, explain, target, rule, got 5"),
    ],
)
def test_each_fault_of_a_section_is_named(problems: Asker, small: str, line: str, message: str) -> None:
    found = only(problems(small + line + "\n"))
    assert found.message.startswith(message)
    assert found.where.startswith("spec.yaml:13:")
    assert found.source.startswith(line)


@pytest.mark.parametrize(
    ("design", "message"),
    [
        ("kind: switchback, control: a, treatment: b", "design.block: needed, and not there"),
        ("kind: switchback, control: a, treatment: b, block: {}", "design.block: needs either length or column"),
        ("kind: switchback, control: a, treatment: b, block: 5h", "design.block: expected a length that divides 24 h"),
        (
            "kind: switchback, control: a, treatment: b, block: {lngth: 2h}",
            "design.block.lngth: unknown key; did you mean 'length'?",
        ),
        (
            "kind: switchback, control: a, treatment: b, block: {length: 2h, offset: 2h}",
            "design.block.offset: expected less",
        ),
        (
            "kind: switchback, control: a, treatment: b, block: 2h, washout: 2h",
            "design.washout: expected less than the block",
        ),
        (
            "kind: observational, control: a, treatment: b, negative_control: n",
            "design.negative_control: no metric is named 'n'",
        ),
        ("kind: did, rollout: r, control: a", "design.treatment: needed, and not there"),
        ("kind: did, rollout: r, period: 1", "design.period: expected a duration such as"),
        ("kind: rdd, running: x, cutoff: 0, fuzzy: true, control: a", "design.treatment: needed, and not there"),
        (
            "kind: rdd, running: x, cutoff: 0, bandwidth: wide",
            "design.bandwidth: expected auto, a number, or {h: …, b: …}",
        ),
        ("kind: ope", "design: needs target_policy, policy_probability, or both"),
        (
            "kind: ope, target_policy: {column: a, else: b}",
            "design.target_policy: needs either column, or rules with else",
        ),
        (
            "kind: ope, target_policy: {rules: [{when: a, action: b}]}",
            "design.target_policy.else: needed, and not there",
        ),
        ("kind: synthetic_control, treated: [a], rollout_at: 2026-11-01", "design.rollout_at: expected a time inside"),
        ("kind: iv, instrument: []", "design.instrument: expected at least 1 item"),
    ],
)
def test_each_fault_of_a_design_is_named(problems: Asker, design: str, message: str) -> None:
    text = (
        f"logs: {{path: a, end: 2026-10-19}}\ndesign: {{{design}}}\n"
        "metrics: {m: {column: y, role: primary, better: lower}}\n"
    )
    found = only(problems(text))
    assert found.message.startswith(message)
    assert found.where.startswith("spec.yaml:2:")


@pytest.mark.parametrize(
    ("given", "where", "message"),
    [
        ("logs", "--set logs", "expected dotted.key=value"),
        ("a..b=1", "--set a..b", "expected dotted.key=value"),
        ("logs.path.0=x", "--set logs.path.0", "logs.path is 'logs/*.parquet', not a mapping"),
        ("metrics.ttft.colum=x", "--set metrics.ttft.colum", "metrics.ttft.colum: unknown key; did you mean 'column'?"),
        ("decision={alpha: 9}", "--set decision", "decision.alpha: expected a number below 1, got 9"),
        ("decision.alpha=[", "--set decision.alpha", "the value '[' cannot be read: not valid YAML"),
        ("decision.alpha={a: 1, a: 2}", "--set decision.alpha", "the value '{a: 1, a: 2}': duplicate key"),
        ("question=\x1b[31m", "--set question", "the value '\\x1b[31m' cannot be read: the character U+001B"),
    ],
)
def test_a_wrong_override_is_named_by_its_option(
    problems: Asker, small: str, given: str, where: str, message: str
) -> None:
    found = only(problems(small, given))
    assert found.where == where
    assert found.message.startswith(message)
    assert found.source == ""


def test_a_list_is_overridden_within_its_length(problems: Asker, small: str) -> None:
    found = only(problems(small + "segments: [tier]\n", "segments.1=x"))
    assert found.message == "segments is a list; expected an index from 0 to 0, got '1'"


def test_values_are_shown_short_and_without_control_characters(problems: Asker, small: str) -> None:
    found = only(problems(small.replace("role: primary", 'role: "\\e[31m' + "x" * 300 + '"')))
    assert "\x1b" not in found.message + found.source
    assert "'\\x1b[31mxxx" in found.message
    assert len(found.message) < 200
    assert all(len(line) <= 120 for line in found.source.splitlines())


def test_the_caret_of_a_long_line_stays_below_its_value(problems: Asker, small: str) -> None:
    found = only(
        problems(
            small
            + f"x: {{{', '.join(f'k{i}: {i}' for i in range(99))}}}\ndecision: {{monitor: {'m' * 200}, alpha: 7}}\n"
        )[1:]
    )
    shown, caret = found.source.splitlines()
    assert shown[caret.index("^")] == "7"


def test_the_caret_counts_wide_letters_as_a_terminal_does(problems: Asker, small: str) -> None:
    found = only(problems(small + "decision: {monitor: 監視, alpha: 7}\n"))
    assert found.where == "spec.yaml:13:32"
    assert found.source.splitlines()[1].index("^") == 33


def test_a_hostile_key_is_escaped(problems: Asker, small: str) -> None:
    found = only(problems(small + '"\\e]0;x\\a\\n": 1\n'))
    assert found.message == "\\x1b]0;x\\x07 : unknown key"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty; expected a spec"),
        (b"# nothing\n", "the file is empty; expected a spec"),
        (b"- a\n", "expected a mapping with logs, design and metrics, got a list"),
        (b"a: \xff\xfe\n", "byte 0xFF is not UTF-8"),
        (b"a: [1\n", "not valid YAML"),
        (b"x" * (1 << 20) + b"\n\n", "is larger than 1 MiB"),
    ],
)
def test_a_file_that_is_no_spec(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "spec.yaml"
    file.write_bytes(content)
    with pytest.raises(SpecError) as error:
        load(file)
    assert message in error.value.problems[0].message
    assert error.value.problems[0].where.startswith(str(file))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    for path, message in [
        (tmp_path / "no.yaml", "no such file"),
        (tmp_path, "is a directory"),
        (tmp_path / "a\0b", "cannot be read"),
    ]:
        with pytest.raises(SpecError) as error:
            load(path)
        assert error.value.problems[0].message.startswith(message)
        assert "\0" not in error.value.problems[0].where


def test_words_of_the_machinery_never_show(problems: Asker, contract: str) -> None:
    text = (
        contract.replace("0.05", "x")
        .replace("2h", "{}")
        .replace("true", "maybe")
        .replace("100", "many")
        .replace("[tier", "[1")
    )
    shown = " ".join(p.message + p.hint for p in problems(text))
    for jargon in ("Input", "pydantic", "dataclass", "dict", "NoneType", "type=", "validation", "tuple", "str "):
        assert jargon not in shown


def test_a_method_where_a_mapping_belongs_is_shown_as_one(problems: Asker, small: str) -> None:
    for given, hint in (("winsorize", "write {method: winsorize}"), ("winsor", "")):
        line = f"  other: {{column: x, role: secondary, better: lower, robust: {given}}}"
        found = only(problems(f"{small}{line}\n"))
        assert (found.message, found.hint) == (f"metrics.other.robust: expected a mapping of keys, got '{given}'", hint)
