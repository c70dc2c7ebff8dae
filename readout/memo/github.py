"""What GitHub Actions shows: annotations through workflow commands, and the step summary."""

# Without "from __future__ import annotations": that would bind the name of a public function here.

import re
from typing import Final, Literal

from readout.memo import words
from readout.memo.escape import workflow_message, workflow_property
from readout.memo.numbers import effect, relative
from readout.results import Action, MetricResult, Readout
from readout.text import named

Level = Literal["error", "warning", "notice"]

SUMMARY_LIMIT: Final = 1024 * 1024  # bytes; GitHub drops a step summary that reaches it
_LEVEL: Final[dict[Action, Level]] = {
    "ship": "notice",
    "target": "notice",
    "holdout": "notice",
    "ramp": "notice",
    "instrument": "warning",
    "stronger_design": "warning",
    "pause": "error",
    "rollback": "error",
}
_CUT_NOTE = "\n\n*The memo is cut here: a step summary has a size limit. The whole memo is in `memo.md`.*\n"
_IMAGE = re.compile(r"^!\[(?P<alt>(?:\\.|[^\]\\])*)\]\((?P<path>[^)\s]*)\)$", re.MULTILINE)


def annotations(readout: Readout) -> list[str]:
    """Workflow commands, one a line: the decision first, then guardrails, failed checks and warnings.

    GitHub shows only the first ten of a level in a step, hence the order by weight.
    """
    decision = readout.decision
    title = f"{readout.name}: {words.ACTION[decision.action]}"
    lines = [_command(_LEVEL[decision.action], title, decision.headline)]
    for metric in words.by_role(readout.metrics):
        if metric.guardrail in ("harmed", "inconclusive"):
            level: Level = "error" if metric.guardrail == "harmed" else "warning"
            title = f"Guardrail {metric.metric} {words.guardrail(metric)}"
            lines.append(_command(level, title, _guardrail_message(metric, words.several_arms(readout))))
    for check in words.by_status(readout.checks):
        if check.status in ("fail", "warn"):
            failed = check.status == "fail"
            title = f"Check {check.name} {'failed' if failed else 'warns'}"
            lines.append(_command("error" if failed else "warning", title, check.message))
    return lines


def _guardrail_message(metric: MetricResult, name_arm: bool) -> str:
    shown = relative(metric.relative, metric.relative_ci_low, metric.relative_ci_high)
    if metric.relative is None:
        shown = effect(metric.estimate, metric.ci_low, metric.ci_high)
    arm = f"{named(metric.arm)}: " if name_arm else ""
    return f"{arm}{shown} against {named(metric.control)}; margin {metric.margin}"


def _command(level: Level, title: str, message: str) -> str:
    return f"::{level} title={workflow_property(title)}::{workflow_message(message)}"


def step_summary(markdown: str, room: int = SUMMARY_LIMIT - 1) -> str:
    """The memo for ``$GITHUB_STEP_SUMMARY``: figures named instead of shown, and at most ``room`` bytes of UTF-8.

    A relative image has no address in a summary. What is too long is cut at the end of a line, or within the line
    between two characters where a line alone is too long, and says so.
    """
    text = _IMAGE.sub(lambda match: f"*Figure `{match['path']}`: {match['alt']}*", markdown)
    encoded, room = text.encode(), max(room, 0)
    if len(encoded) <= room:
        return text
    note = _CUT_NOTE.encode()
    head = encoded[: max(room - len(note), 0)].decode(errors="ignore")
    line_end = head.rfind("\n")
    kept = head[:line_end] if line_end > len(head) // 2 else head
    return (kept.encode() + note)[:room].decode(errors="ignore")
