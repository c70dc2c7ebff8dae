"""The front of the memo, section by section. Each function gives the lines of one section, none where it is empty."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from readout.memo import words
from readout.memo.escape import markdown, name
from readout.memo.figures import alt_text
from readout.memo.numbers import (
    DASH,
    count,
    decimals,
    effect,
    fixed,
    level,
    number,
    percent,
    relative,
)
from readout.memo.tables import bullets, section, table
from readout.results import MetricResult, Readout

_METRICS_SHOWN = 14  # rows of the effect table; what is beyond stands in the appendix
_WARNINGS_SHOWN = 8
_ADJUSTED = frozenset({"block_regression", "cuped", "regression_adjusted"})
_WITHOUT = frozenset({"callaway_santanna", "two_by_two", "event_study", "synthetic_control", "synthetic_did"})
_NAIVE = {"per_token": "by tokens", "per_request": "by requests", "provisioned": "provisioned"}


def decision(readout: Readout) -> list[str]:
    """Title, action, headline and reasons."""
    chosen = readout.decision
    opening, rest = words.opening(chosen)
    lines = [f"**{markdown(opening)}** {markdown(rest)}".rstrip()]
    arms = bullets(f"{name(arm)}: {words.ACTION[action]}" for arm, action in chosen.by_arm.items())
    return section(
        f"# {markdown(readout.name)}",
        lines,
        bullets(markdown(reason) for reason in chosen.reasons),
        ["By arm:", "", *arms] if words.several_arms(readout) and arms else [],
    )


def comparison(readout: Readout) -> list[str]:
    """The question, what the treatment was compared with, and how assignment happened."""
    design = readout.design
    facts = [
        ("Question", markdown(readout.question)),
        ("Compared with", markdown(readout.counterfactual)),
        ("How assignment happened", markdown(readout.assignment)),
        ("What was to be estimated" if words.undermining(readout) else "What is estimated", _estimand(readout)),
        ("Sample", _sample(design)),
        ("Window", markdown(f"{words.window(readout)}; read as of {words.moment(readout.as_of)}")),
    ]
    return section("## What was compared", bullets(f"**{label}:** {fact}" for label, fact in facts if fact))


def _estimand(readout: Readout) -> str:
    estimand, method = readout.design.get("estimand"), readout.design.get("method")
    shown = markdown(words.estimand(str(estimand))) if estimand else ""
    if readout.design.get("kind") == "observational" and estimand == "ate":
        shown = (
            "average effect on a request of its own action, over "
            + ("the requests of control and of that treatment" if words.several_arms(readout) else "all requests")
            + " (ATE)"
        )
    if any((readout.diagnostics.get("trimmed") or {}).values()):
        shown += " among the rows that " + ("have a match" if method == "matching" else "were not trimmed")
    if not method or not words.estimated(readout.metrics):
        return shown
    return f"{shown} by {name(str(method))}" if shown else f"by {name(str(method))}"


def _sample(design: Mapping[str, Any]) -> str:
    n_units = design.get("n_units") or {}
    arms = ", ".join(f"{name(str(arm))} {count(n)}" for arm, n in n_units.items())
    unit = f" (counted as {markdown(str(design['unit']))})" if arms and design.get("unit") else ""
    times = [f"{key} {markdown(str(design[key]))}" for key in ("block", "washout") if design.get(key)]
    return "; ".join(part for part in (arms + unit, *times) if part)


def effects(readout: Readout) -> list[str]:
    """The effect table, primary first, with what puts it in doubt before it and how to read it after it."""
    heading = "## Effects"
    metrics = words.by_role(readout.metrics)
    if not words.estimated(metrics):
        arms = words.several_arms(readout)
        return section(heading, ["No effect was estimated."], bullets(_notes(metrics[:_METRICS_SHOWN], arms)))
    shown = metrics[:_METRICS_SHOWN]
    arms = words.several_arms(readout)
    headers = ["Metric", *(["Arm"] if arms else []), "Control", "Treatment", "Effect", "Relative effect", "Verdict"]
    rows = [_effect_row(metric, arms) for metric in shown]
    beyond = len(metrics) - len(shown)
    return section(
        heading,
        _doubt(readout),
        table(headers, rows, right="l" + "l" * arms + "rrrrl"),
        [_reading(readout, shown)] + ([f"{beyond} more rows are in the appendix."] if beyond else []),
        _families(readout),
        bullets(_notes(shown, arms)),
        _figures(readout),
    )


def _effect_row(metric: MetricResult, arms: bool) -> list[str]:
    title = name(metric.metric)
    ends = (metric.ci_low, metric.ci_high) if metric.ci_low is not None and metric.ci_high is not None else ()
    values = (metric.control_value, metric.treatment_value)
    places = decimals(ends or values)
    return [
        f"**{title}**" if metric.role == "primary" else f"{title} ({markdown(metric.role.replace('_', ' '))})",
        *([name(metric.arm)] if arms else []),
        *(fixed(value, places) for value in values),
        effect(metric.estimate, metric.ci_low, metric.ci_high),
        relative(metric.relative, metric.relative_ci_low, metric.relative_ci_high),
        words.verdict(metric),
    ]


def _doubt(readout: Readout) -> list[str]:
    failed = words.undermining(readout)
    if not failed:
        return []
    names = ", ".join(name(check.name) for check in failed)
    return [
        f"Read these numbers with care: what failed ({names}) means that they may not be the effect of the treatment. "
        "They are shown as measured and do not carry the decision."
    ]


def _reading(readout: Readout, shown: list[MetricResult]) -> str:
    verdicts = {metric.verdict for metric in shown}
    parts = [f"Effects are treatment minus control, with {words.intervals(readout)} at {level(readout.alpha)}."]
    if any(_is_adjusted(metric) for metric in shown):
        parts.append("Control and treatment are adjusted means, so raw averages of the log differ from them.")
    if any(metric.method in _WITHOUT for metric in shown):
        parts.append("Treatment is the mean of the treated, control what they would have had without it.")
    if "no_effect" in verdicts:
        parts.append("*No effect*: the whole interval lies inside the smallest effect worth acting on.")
    if "inconclusive" in verdicts:
        parts.append("*Inconclusive*: the interval leaves open whether there is an effect; it does not show that none.")
    if None in verdicts:
        parts.append(f"{DASH}: none, or withheld.")
    return " ".join(parts)


def _is_adjusted(metric: MetricResult) -> bool:
    """Whether the arms' values are adjusted means; schedules drawn anew are held against the block regression."""
    blocks = metric.method == "randomization_inference" and metric.unit.endswith("block")
    return blocks or metric.method in _ADJUSTED


def _families(readout: Readout) -> list[str]:
    """Which of the effects that are read together stand when they are judged together."""
    lines = []
    arms = words.several_arms(readout)
    for role in ("primary", "secondary"):
        family = [m for m in readout.metrics if m.role == role and m.p_value_holm is not None]
        if len(family) < 2:
            continue
        stand = [m for m in family if m.p_value_holm is not None and m.p_value_holm < readout.alpha]
        named = ", ".join(f"{name(m.metric)} for {name(m.arm)}" if arms else name(m.metric) for m in stand)
        what = f"{role} effects ({'metrics and arms' if arms else 'metrics'})"
        found = f"{len(stand)} of {len(family)} {what} {'differs' if len(stand) == 1 else 'differ'} from zero: {named}."
        none = f"none of {len(family)} {what} differs from zero."
        lines.append(f"Judged together (Holm, {level(readout.alpha)}), {found if stand else none}")
    return lines


def _notes(shown: list[MetricResult], arms: bool) -> list[str]:
    notes = []
    for metric in shown:
        title = f"{name(metric.metric)} for {name(metric.arm)}" if arms else name(metric.metric)
        sentences = [metric.note] if metric.note else []
        if metric.relative is None and metric.relative_reason:
            sentences.append(f"no relative effect: {metric.relative_reason}")
        notes += [f"{title}: {markdown(sentence)}" for sentence in sentences]
    return notes


def _figures(readout: Readout) -> list[str]:
    lines: list[str] = []
    for path in readout.figures:
        lines += ([""] if lines else []) + [f"![{markdown(alt_text(path, readout))}]({path})"]
    return lines


def guardrails(readout: Readout) -> list[str]:
    """Every guardrail with its margin, the harmful end of its interval, and how it is to be read."""
    guarded = [m for m in readout.metrics if m.role == "guardrail" or m.margin is not None]
    if not guarded:
        return section("## Guardrails", ["None was named: harm to other metrics was not looked for."])
    arms = words.several_arms(readout)
    headers = ["Guardrail", *(["Arm"] if arms else []), "Largest harm accepted", "Harm not ruled out", "Reading"]
    rows = [
        [
            name(m.metric),
            *([name(m.arm)] if arms else []),
            markdown(m.margin) if m.margin else DASH,
            _harmful_end(m),
            words.guardrail(m),
        ]
        for m in guarded
    ]
    lines = []
    if any(m.guardrail == "inconclusive" for m in guarded):
        lines = [
            "*Not shown safe*: the interval reaches past the margin, so a larger harm than accepted is not ruled out."
        ]
    doubt = ["These readings share the doubt about the effects."] if words.undermining(readout) else []
    return section("## Guardrails", table(headers, rows, right="l" + "l" * arms + "rrl"), lines, doubt)


def _harmful_end(metric: MetricResult) -> str:
    """The interval's end on the harmful side, on the margin's scale; "none" where even that end is no harm."""
    in_percent = metric.margin is not None and metric.margin.rstrip().endswith("%")
    low, high = (metric.relative_ci_low, metric.relative_ci_high) if in_percent else (metric.ci_low, metric.ci_high)
    if low is None or high is None:
        return DASH
    harm = high if metric.better == "lower" else low
    if (harm <= 0) if metric.better == "lower" else (harm >= 0):
        return "none"
    if in_percent:
        return f"{fixed(100 * harm, decimals((100 * low, 100 * high), digits=2), signed=True)} %"
    return fixed(harm, decimals((low, high)), signed=True)


def failure_mode(readout: Readout) -> list[str]:
    """How the treatment may fail, what limits that, and what is watched."""
    facts = [
        ("How it may fail", readout.failure_mode),
        ("What limits it", readout.mitigation),
        ("What is watched", readout.monitor),
    ]
    return section("## Failure mode", bullets(f"**{label}:** {markdown(fact)}" for label, fact in facts if fact))


def checks(readout: Readout) -> list[str]:
    """The checks that failed, with what they ask for, and those that warn."""
    failed = [c for c in readout.checks if c.status == "fail"]
    warned = [c for c in readout.checks if c.status == "warn"]
    counts = {status: sum(c.status == status for c in readout.checks) for status in ("pass", "skip")}
    rows = [[name(c.name), markdown(c.message), words.ACTION[c.action] if c.action else DASH] for c in failed]
    more = [f"{len(warned) - _WARNINGS_SHOWN} more warnings are in the appendix."]
    skipped = "Skipped, since they could see nothing here (the appendix says why)"
    summary = f"Passed: {counts['pass']}. {skipped}: {counts['skip']}."
    return section(
        "## Checks that weigh on the decision",
        table(["Failed", "What was found", "Asks for"], rows) if rows else ["No check failed."],
        bullets(f"Warning, {name(c.name)}: {markdown(c.message)}" for c in warned[:_WARNINGS_SHOWN])
        + (bullets(more) if len(warned) > _WARNINGS_SHOWN else []),
        [summary],
    )


# Whom a net value is of that is not an average over the arms.
_NET_OF = {"late": " on those whom the instrument moves", "local": " at the cutoff"}


_BY_ARM = (
    "By arm: what ran, as it ran. The arms' requests differ; only the net value against control is adjusted for it."
)


def economics(readout: Readout) -> list[str]:
    """Net value against the bar, and value and cost by arm."""
    money = readout.economics
    if not money:
        return []
    costs, margins, per_arm = (money.get(key) or {} for key in ("cost_per_success", "margin", "per_arm"))
    arms = list(dict.fromkeys([*per_arm, *costs, *margins]))
    columns = [
        ("Requests", {arm: count(row.get("requests")) for arm, row in per_arm.items()}),
        ("Value, USD", {arm: number(row.get("value_usd")) for arm, row in per_arm.items()}),
        ("Cost, USD", {arm: number(row.get("cost_usd")) for arm, row in per_arm.items()}),
        ("Net USD per 1,000", {arm: number(row.get("net_usd_per_1k_requests")) for arm, row in per_arm.items()}),
        ("USD per success", {arm: number(value) for arm, value in costs.items()}),
        ("Margin", {arm: percent(value, digits=3) for arm, value in margins.items()}),
    ]
    columns = [(header, cells) for header, cells in columns if any(cell != DASH for cell in cells.values())]
    rows = [[name(str(arm)), *(cells.get(arm, DASH) for _, cells in columns)] for arm in arms]
    return section(
        "## Economics",
        [" ".join(_economics_sentences(money, _NET_OF.get(str(readout.design.get("estimand")), "")))],
        table(["Arm", *(header for header, _ in columns)], rows, right="l" + "r" * len(columns)) if columns else [],
        [_BY_ARM] if columns and readout.design.get("kind") == "observational" else [],
    )


def _economics_sentences(money: Mapping[str, Any], whose: str) -> list[str]:
    net, bar = money.get("net_usd_per_1k_requests") or {}, money.get("bar")
    estimate, low, high = (net.get(key) for key in ("estimate", "ci_low", "ci_high"))
    if estimate is None:
        sentences = ["The net value could not be estimated."]
    else:
        sentences = [f"Net value against control{whose}: {effect(estimate, low, high)} USD per 1,000 requests."]
    if bar is not None and low is not None and high is not None:
        wanted = f"the bar of {number(bar)}"
        if low > bar:
            sentences.append(f"The whole interval is above {wanted}.")
        elif high < bar:
            sentences.append(f"The whole interval is below {wanted}.")
        else:
            sentences.append(f"The interval includes {wanted}: it is not shown that the change pays.")
    if money.get("value_per_gpu_hour") is not None:
        sentences.append(f"Value per GPU hour: {number(money['value_per_gpu_hour'])} USD.")
    return sentences


def energy(readout: Readout) -> list[str]:
    """Energy and carbon attributed to each arm, with the naive rules beside it."""
    shares = readout.attribution
    if not shares:
        return []
    per_arm, naive = shares.get("per_arm") or {}, shares.get("naive") or {}
    headers = ["Arm", "Requests", "Wh per request", "Wh per success", "gCO2e per request"]
    headers += [f"Wh, {_NAIVE.get(rule) or markdown(str(rule))}" for rule in naive]
    rows = [
        [
            name(str(arm)),
            count(row.get("requests")),
            *(number(row.get(key)) for key in ("wh_per_request", "wh_per_success", "g_per_request")),
            *(number((by_arm or {}).get(arm)) for by_arm in naive.values()),
        ]
        for arm, row in per_arm.items()
    ]
    lines = table(headers, rows, right="l" + "r" * (len(headers) - 1)) if rows else []
    return section("## Energy", lines, [" ".join(_energy_sentences(shares, _agreement(per_arm, naive)))])


def _agreement(per_arm: Mapping[str, Any], naive: Mapping[str, Any]) -> str:
    """What the naive rules say beside the attribution."""
    if not naive:
        return ""
    shown = [
        {number(row.get("wh_per_request")), *(number((by_arm or {}).get(arm)) for by_arm in naive.values())}
        for arm, row in per_arm.items()
    ]
    if all(len(values) == 1 for values in shown):
        return "Simpler rules (the last columns) agree by arm here."
    return "The last columns are what simpler rules would have said, in Wh per request."


def _energy_sentences(shares: Mapping[str, Any], agreement: str) -> list[str]:
    sentences = []
    method, model = shares.get("method"), shares.get("energy_model")
    if method and model:
        sentences.append(
            f"Each request's share of its batches' energy is its Shapley value (method {name(str(method))}) "
            f"under the energy model {name(str(model))}, and as good as that model."
        )
    measured = (shares.get("measured") or {}).get("used")
    if measured:
        of_all = f"{count(measured)} of {count(shares.get('batches'))} batches"
        sentences.append(f"The energy of {of_all} was measured; there the model only divides it.")
    if agreement:
        sentences.append(agreement)
    if loads := (shares.get("cold_start") or {}).get("loads"):
        carried = number(shares["cold_start"].get("carried_wh"))
        sentences.append(
            f"In it are {carried} Wh of {count(loads)} model loads, spread over the requests that followed."
        )
    if shares.get("unattributed"):
        sentences.append(f"{count(shares['unattributed'])} requests could not be attributed.")
    return sentences


def outlook(readout: Readout) -> list[str]:
    """What stops it, what would change the decision, and the next step."""
    chosen = readout.decision
    goes_on = chosen.action in ("ship", "ramp", "target", "holdout")
    heading = "## What stops the ramp" if goes_on else "## What would stop a ramp"
    heading = "## What stops it" if chosen.action == "target" else heading
    stops = section(heading, bullets(markdown(condition) for condition in chosen.stop_if))
    changes = section("## What would change the decision", bullets(markdown(text) for text in chosen.would_change))
    then = section("## Next step", [markdown(chosen.next_step)] if chosen.next_step else [])
    lines: list[str] = []
    for part in (stops, changes, then):
        lines += ["", *part] if lines and part else part
    return lines
