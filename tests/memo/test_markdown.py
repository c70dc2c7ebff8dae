"""The memo says the decision first, claims no more than was shown, and keeps data from becoming markup."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from markdown_it import MarkdownIt

from readout.memo.markdown import memo
from readout.memo.words import ACTION
from readout.results import ACTIONS, Check, Readout

GFM = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])


def _section(text: str, heading: str) -> str:
    return text.split(f"\n{heading}\n", 1)[1].split("\n## ", 1)[0]


def _headings(text: str) -> list[str]:
    return re.findall(r"^#+ .*$", text, re.MULTILINE)


def test_the_decision_is_the_first_thing_said(switchback: Readout) -> None:
    lines = memo(switchback).splitlines()
    assert lines[0] == "# premium-router"
    assert lines[2] == "**Ship.** Time to first token falls by 6.1 % and every guardrail but one holds."
    assert lines[4] == "- ttft is better by 25.3 ms, past the minimum effect of 5%."


def test_a_headline_that_names_the_action_does_not_say_it_twice(switchback: Readout) -> None:
    def opened(action: str, headline: str) -> str:
        decision = replace(switchback.decision, action=action, headline=headline)  # type: ignore[arg-type]
        return memo(replace(switchback, decision=decision)).splitlines()[2]

    assert opened("rollback", "Roll back premium: a trigger fired.") == "**Roll back premium:** a trigger fired."
    assert opened("pause", "Pause: assignment broke.") == "**Pause:** assignment broke."
    assert opened("ramp", "Nothing is clear: wait.") == "**Ramp in steps.** Nothing is clear: wait."
    assert opened("ship", "Ship *x*: [y]") == "**Ship \\*x\\*:** \\[y\\]"


def test_sections_stand_in_the_readers_order(switchback: Readout) -> None:
    assert _headings(memo(switchback)) == [
        "# premium-router", "## What was compared", "## Effects", "## Guardrails", "## Failure mode",
        "## Checks that weigh on the decision", "## Economics", "## Energy", "## What stops the ramp",
        "## What would change the decision", "## Next step", "# Appendix", "## All metrics", "## All checks", "## Rows",
        "## Columns", "## Design", "## Attribution", "## Diagnostics", "### `by_cluster`", "### `carryover_fit`",
        "### `mixed`", "### `mixed: terms`", "### `carryover: lags`", "## Notes", "## Reproducibility",
    ]  # fmt: skip


def test_the_front_is_short_enough_for_two_minutes(switchback: Readout, spillover: Readout) -> None:
    for readout in (switchback, spillover):
        front = memo(readout).split("\n# Appendix\n")[0]
        assert len(front.splitlines()) <= 90
        assert len([line for line in front.splitlines() if line]) <= 62


def test_the_effect_table_has_the_primary_first_and_whole_intervals(switchback: Readout) -> None:
    rows = [line for line in _section(memo(switchback), "## Effects").splitlines() if line.startswith("| ")]
    assert rows[0] == "| Metric | Control | Treatment | Effect | Relative effect | Verdict |"
    assert rows[2] == "| **`ttft`** | 413.5 | 388.2 | -25.3 [-31.3, -19.4] | -6.1 % [-7.5 %, -4.7 %] | better |"
    assert [row.split("`")[1] for row in rows[2:]] == ["ttft", "error_rate", "ttft_p99", "cost_per_success", "success"]
    assert rows[-1].endswith("| +0.11 % [-0.01 %, +0.23 %] | no effect |")


def test_an_inconclusive_guardrail_is_called_not_shown_safe(switchback: Readout) -> None:
    section = _section(memo(switchback), "## Guardrails")
    assert "| `error_rate` | 0.002 | +0.00110 | holds |" in section
    assert "| `ttft_p99` | 5% | +5.6 % | not shown safe |" in section
    assert "a larger harm than accepted is not ruled out" in section


def test_a_guardrail_that_can_only_help_shows_no_harm(switchback: Readout) -> None:
    metrics = tuple(replace(m, margin="5%", guardrail="holds") for m in switchback.metrics if m.metric == "ttft")
    assert "| `ttft` | 5% | none | holds |" in memo(replace(switchback, metrics=metrics))


def test_no_guardrail_is_said_plainly(switchback: Readout) -> None:
    metrics = tuple(m for m in switchback.metrics if m.metric == "ttft")
    assert "harm to other metrics was not looked for" in memo(replace(switchback, metrics=metrics))


def test_a_failed_check_takes_the_claim_from_the_numbers(switchback: Readout, spillover: Readout) -> None:
    doubt = "Read these numbers with care: what failed (`untreated_outcomes`)"
    effects = _section(memo(spillover), "## Effects")
    assert effects.strip().startswith(doubt)
    assert "These readings share the doubt about the effects." in _section(memo(spillover), "## Guardrails")
    assert "**What was to be estimated:** average effect" in memo(spillover)
    assert "**What is estimated:** average effect" in memo(switchback)
    assert "Read these numbers with care" not in memo(switchback)
    below_bar = Check("economic_bar", "economics", "fail", "net value is below the bar", action="rollback")
    assert "Read these numbers with care" not in memo(replace(switchback, checks=(below_bar,)))


def test_failed_checks_stand_in_front_and_passed_ones_only_in_the_appendix(spillover: Readout) -> None:
    front, appendix = memo(spillover).split("\n# Appendix\n")
    assert "| `untreated_outcomes` | ttft of untreated rows rises by 14 ms" in front
    assert "| Run a stronger design |" in front
    assert "Warning, `carryover`: the lag's interval leaves the band: 1.2 \\[-4.0, 6.4\\] ms" in front
    assert "Passed: 2. Skipped, since they could see nothing here (the appendix says why): 1." in front
    assert "`srm`" not in front
    assert "| pass | `srm` | assignment | 252 blocks of each arm; p = 1.000 | 0 | 0.00100 | 0 | >0.999 |" in appendix


def test_several_arms_have_their_column_and_their_actions(spillover: Readout) -> None:
    text = memo(spillover)
    assert "- `premium-plus`: Run a stronger design" in text
    rows = [line for line in _section(text, "## Effects").splitlines() if line.startswith("| ")]
    assert rows[0].startswith("| Metric | Arm |")
    assert [row.split("|")[2].strip() for row in rows[2:]] == ["`premium`", "`premium-plus`"] * 3


def test_one_arm_has_no_arm_column(switchback: Readout) -> None:
    text = memo(switchback)
    assert "| Metric | Control |" in text
    assert "By arm:" not in text


def test_logs_that_show_nothing_give_no_number_and_no_empty_section(instrument: Readout) -> None:
    text = memo(instrument)
    assert text.splitlines()[2] == "**Instrument more.** The logs lack live state."
    effects = _section(text, "## Effects")
    assert effects.strip().startswith("No effect was estimated.")
    assert "`ttft`: no relative effect: the control mean is not positive" in effects
    for absent in ("## Economics", "## Energy", "## Failure mode", "## What stops the ramp", "## Next step", "None"):
        assert absent not in text.replace("None was named", "")


def test_economics_says_where_the_interval_stands_against_the_bar(switchback: Readout) -> None:
    def said(low: float, high: float) -> str:
        net = {"estimate": (low + high) / 2, "ci_low": low, "ci_high": high}
        return memo(replace(switchback, economics={**(switchback.economics or {}), "net_usd_per_1k_requests": net}))

    assert "+0.410 [+0.120, +0.700] USD per 1,000 requests. The whole interval is above the bar of 0." in memo(
        switchback
    )
    assert "The interval includes the bar of 0: it is not shown that the change pays." in said(-0.1, 0.4)
    assert "The whole interval is below the bar of 0." in said(-0.4, -0.1)


def test_economics_without_a_value_leaves_its_columns_out(switchback: Readout) -> None:
    bare: dict[str, object] = {
        "value_per_gpu_hour": None, "cost_per_success": None, "margin": None, "net_usd_per_1k_requests": None,
        "bar": 0, "per_arm": {},
    }  # fmt: skip
    section = _section(memo(replace(switchback, economics=bare)), "## Economics")
    assert section.strip() == "The net value could not be estimated."


def test_energy_shows_the_naive_rules_beside_the_attribution(switchback: Readout) -> None:
    section = _section(memo(switchback), "## Energy")
    assert "| Wh, by tokens | Wh, by requests | Wh, provisioned |" in section
    assert "| `premium` | 567,000 | 0.0445 | – | 0.0169 | 0.0433 | 0.0452 | 0.0611 |" in section
    assert "The last columns are what simpler rules would have said" in section
    assert "12 requests could not be attributed." in section
    shares = switchback.attribution or {}
    same = {rule: {"current": 0.0459, "premium": 0.0445} for rule in ("per_token", "per_request")}
    whole = {**shares, "naive": same, "measured": {"used": 40_000, "missing": 1_000}}
    section = _section(memo(replace(switchback, attribution=whole)), "## Energy")
    assert "Simpler rules (the last columns) agree by arm here." in section
    assert "The energy of 40,000 of 41,000 batches was measured; there the model only divides it." in section


def test_figures_are_embedded_with_what_they_show_in_words(switchback: Readout) -> None:
    text = memo(switchback)
    assert "![ttft by block over time in 3 clusters, by arm (current, premium)](figures/blocks.svg)" in text
    assert "![Relative effects with 95 % intervals: ttft -6.1 % \\[-7.5 %, -4.7 %\\], better; " in text


def test_the_appendix_has_the_rest(switchback: Readout) -> None:
    appendix = memo(switchback).split("\n# Appendix\n")[1]
    assert "1,234,567 rows read, 1,134,000 kept (91.9 %)." in appendix
    assert "| washout | 100,000 |" in appendix
    assert "| `arm` | `arm` | taken by its name |" in appendix
    assert "| `state` | `queue_depth`, `cache_warm` | named in the spec |" in appendix
    assert "| `ttft` | -25.31 | 3.020 | 160.4 | -8.380 | <0.001 | 8.45 |" in appendix
    assert "| eu | -24.1 | 168 |" in appendix
    assert "| lag_1 | 1.2 | 2.6 |" in appendix
    assert "- Decision rule: `everything_clear`" in appendix
    assert "`" + "9f" * 32 + "`" in appendix


def test_long_diagnostics_are_cut_and_say_so(switchback: Readout) -> None:
    rows = [{"unit": i, "value": i / 7} for i in range(60)]
    text = memo(replace(switchback, diagnostics={"units": rows}))
    assert "10 more rows are in `readout.json`." in text
    assert "| 49 | 7 |" in text
    assert "| 50 |" not in text


def test_a_table_of_a_check_is_shown_once(switchback: Readout) -> None:
    lags = [{"lag": 1, "estimate": 1.2, "ci_low": -4.0, "ci_high": 6.4}]
    text = memo(replace(switchback, diagnostics={"lags": lags}))
    assert "### `lags`" in text
    assert "### `carryover: lags`" not in text


def test_many_metrics_go_to_the_appendix(switchback: Readout) -> None:
    secondary = switchback.metrics[0]
    extra = tuple(replace(secondary, metric=f"m{i}") for i in range(30))
    front, appendix = memo(replace(switchback, metrics=(*switchback.metrics, *extra))).split("\n# Appendix\n")
    assert "21 more rows are in the appendix." in front
    assert "`m29`" not in front
    assert "`m29`" in appendix


@pytest.mark.parametrize("action", ACTIONS)
def test_every_action_has_its_words(switchback: Readout, action: str) -> None:
    readout = replace(switchback, decision=replace(switchback.decision, action=action))  # type: ignore[arg-type]
    assert f"**{ACTION[readout.decision.action]}.**" in memo(readout)


def test_the_same_readout_gives_the_same_bytes_and_every_table_is_rectangular(
    switchback: Readout, spillover: Readout, instrument: Readout, hostile: Readout
) -> None:
    for readout in (switchback, spillover, instrument, hostile):
        text = memo(readout)
        assert text == memo(readout)
        assert text.endswith("\n")
        assert "\n\n\n" not in text
        for block in re.findall(r"(?:^\|.*\|$\n)+", text, re.MULTILINE):
            assert len({len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}) == 1


def test_hostile_text_becomes_no_markup(hostile: Readout, spillover: Readout) -> None:
    text = memo(hostile)
    html = GFM.render(text)
    assert set(re.findall(r"</?([a-z0-9]+)", html)) <= {
        "h1", "h2", "h3", "p", "strong", "em", "ul", "li", "table", "thead", "tbody", "tr", "th", "td", "code", "img",
        "hr",
    }  # fmt: skip
    assert re.findall(r'<img src="([^"]*)"', html) == ["figures/effects.svg"]
    assert html.count("<h1>") == 2
    assert set(re.findall(r"<h2>(.*?)</h2>", html)) >= {"Effects", "Guardrails", "Next step"}
    assert not any(ord(c) < 32 and c != "\n" for c in text)
    assert "\u202e" not in text
    assert not re.search(r"^\s*::|##\[", text, re.MULTILINE)
