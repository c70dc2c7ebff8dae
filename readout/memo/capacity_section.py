"""The shared pool's tail in the memo: windows over the limit, how far, what happened inside them, cost by state."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from readout.memo import words
from readout.memo.escape import markdown, name
from readout.memo.numbers import count, effect, level, number, percent
from readout.memo.tables import section, table
from readout.results import Readout
from readout.text import named

_INSIDE = {
    "fallback": "fallbacks",
    "timeouts": "timeouts",
    "net_usd_per_1k_requests": "net USD per 1,000 requests",
    "margin": "margin (net over value)",
}


def capacity(readout: Readout) -> list[str]:
    """The lines of the section; none where the spec states no capacity."""
    found = readout.capacity
    if not found:
        return []
    if not found["windows"]:
        return section("## Capacity", [_definition(found)], [_of_pool(found)], _cost(found))
    arms = words.several_arms(readout)
    return section(
        "## Capacity",
        [_definition(found)],
        _tail(found),
        [_reading(readout, found)],
        _inside(found, arms),
        _cost(found),
    )


def sentence(readout: Readout) -> str:
    """The share of windows over the limit in one line, for a terminal; empty where the spec states no capacity."""
    found = readout.capacity
    if not found:
        return ""
    about = f"Windows of {found['window']} with {found['load']} over {number(found['limit'])}"
    if not found["windows"]:
        return f"{about}: {percent(found['pool']['share_over'])} of {count(found['pool']['windows'])}."
    shares = found["share_over"]["by_arm"]
    said = ", ".join(f"{named(arm)} {percent(one['value'])}" for arm, one in shares.items())
    effects = found["share_over"]["effects"]
    changes = [f"{named(arm)} {_points(one)} points" for arm, one in effects.items() if one["reason"] == ""]
    return f"{about}: {said}" + (f"; change: {', '.join(changes)}." if changes else ".")


def _definition(found: Mapping[str, Any]) -> str:
    margin = found["margin"]
    accepted = f"a rise of up to {100 * margin:.6g} points is accepted" if margin else "no rise is accepted"
    return (
        f"A window is {markdown(found['window'])} of one pool; it is over the limit where {name(found['load'])} is "
        f"above {number(found['limit'])} at any of its requests. Of the share of windows over it, {accepted}."
    )


def _of_pool(found: Mapping[str, Any]) -> str:
    pool = found["pool"]
    over = f"{count(pool['over'])} of {count(pool['windows'])} windows were over it ({percent(pool['share_over'])})"
    excess = "" if pool["expected_shortfall"] is None else f", by {number(pool['expected_shortfall'])} on average"
    largest = f"; the largest load was {number(pool['maximum'])}."
    return f"{over}{excess}{largest} Both arms met the same windows, so they are not compared."


def _tail(found: Mapping[str, Any]) -> list[str]:
    headers = ["Arm", "Windows", "Over", "Share over", "Change, points", "Excess above the limit", "Largest load"]
    rows = []
    for arm, n in found["windows"].items():
        change = found["share_over"]["effects"].get(arm, {})
        rows.append(
            [
                name(arm),
                count(n),
                count(found["over"][arm]),
                _with_ends(found["share_over"]["by_arm"][arm], 100.0, " %"),
                _points(change) if change else "",
                _with_ends(found["expected_shortfall"]["by_arm"][arm]),
                number(found["peak"]["by_arm"][arm]["maximum"]),
            ]
        )
    return table(headers, rows, right="lrrrrrr")


def _reading(readout: Readout, found: Mapping[str, Any]) -> str:
    unit = markdown(str(found["unit"]))
    parts = [
        f"Intervals at {level(readout.alpha)}, over {unit}s; the change is the design's own estimate, adjusted as the "
        "effects are. The excess is the mean over windows over the limit."
    ]
    why = {arm: one["reason"] for arm, one in found["share_over"]["effects"].items() if one["reason"]}
    parts += [f"No change could be estimated for {name(arm)}: {markdown(reason)}." for arm, reason in why.items()]
    rows = [value for value in found["rows_per_window"].values() if value]
    if rows and max(rows) > 1.1 * min(rows):
        said = ", ".join(f"{name(arm)} {number(value)}" for arm, value in found["rows_per_window"].items())
        parts.append(f"Requests a window differ ({said}): where fewer look, the largest load seen is lower.")
    if found["windows_cut_by_a_block"]:
        parts.append(f"{count(found['windows_cut_by_a_block'])} windows are cut in two by a block's start.")
    if found["rows_without_load"]:
        parts.append(f"{count(found['rows_without_load'])} kept rows have no load and show nothing.")
    return " ".join(parts)


def _inside(found: Mapping[str, Any], arms: bool) -> list[str]:
    """What happened inside the windows over the limit."""
    if not any(found["over"].values()):
        return ["No window was over the limit."]
    metrics = found["inside"].get("metrics", {})
    own = {label: found["inside"][key] for key, label in _INSIDE.items() if key in found["inside"]}
    shown = [*((name(metric), one) for metric, one in metrics.items()), *own.items()]
    if not shown:
        return []
    headers = ["Inside windows over the limit", *(["Arm"] if arms else []), "Control", "Treatment", "Difference"]
    rows = []
    for label, one in shown:
        control = next(iter(one["by_arm"].values()))
        for arm, change in one["effects"].items():
            treated = one["by_arm"][arm]
            rows.append(
                [label, *([name(arm)] if arms else []), number(control["value"]), number(treated["value"]),
                 effect(change["estimate"], change["ci_low"], change["ci_high"])]
            )  # fmt: skip
    note = "Which windows these are is itself an outcome: the differences describe the tail and are not effects."
    return [*table(headers, rows, right="l" + "l" * arms + "rrr"), "", note]


def _cost(found: Mapping[str, Any]) -> list[str]:
    """What a request took in the emptiest and the fullest state, and whether the latter's mean has come to rest."""
    states = found["cost_by_state"]
    if not states:
        return []
    of = name(found["cost_of"])
    said = []
    for arm in dict.fromkeys(row["arm"] for row in states):
        mine = [row for row in states if row["arm"] == arm and row["mean"] is not None]
        if len(mine) > 1:
            low, high = mine[0], mine[-1]
            said.append(f"{name(arm)} {number(low['mean'])} ({low['bin']}) and {number(high['mean'])} ({high['bin']})")
    words_for = {True: "has settled", False: "has not settled", None: "cannot be said to have settled"}
    strays = ", ".join(
        f"{name(one['arm'])} halves {number(one['first_half'])} and {number(one['second_half'])}"
        for one in found["settling"]
        if one["first_half"] is not None
    )
    settled = f"The mean in the fullest state {words_for[found['settled']]} over the window"
    settled += f" ({strays})." if strays else "."
    return [f"Mean of {of} a request, from the emptiest state to the fullest: {'; '.join(said)}. {settled}"]


def _points(change: Mapping[str, Any]) -> str:
    ends = (change.get(key) for key in ("estimate", "ci_low", "ci_high"))
    return effect(*(None if value is None else 100 * value for value in ends))


def _with_ends(one: Mapping[str, Any], scale: float = 1.0, unit: str = "") -> str:
    value, low, high = (None if one[key] is None else scale * one[key] for key in ("value", "ci_low", "ci_high"))
    shown = number(value) + (unit if value is not None else "")
    return shown if low is None or high is None else f"{shown} [{number(low)}, {number(high)}]"
