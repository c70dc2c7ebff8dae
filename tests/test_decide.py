from __future__ import annotations

import itertools
import re
from dataclasses import dataclass, field, replace
from string import Formatter
from types import SimpleNamespace
from typing import Any

import pytest

from estimators.estimate import Estimate
from estimators.surrogate import Prediction
from readout import decide as decisions
from readout.decide import decide, rules
from readout.results import Check, Heterogeneity, MetricResult, SegmentResult, Segments
from readout.spec.designs import IV, OPE, RDD, DiD, Observational, UserRCT
from readout.spec.fields import Effect
from readout.spec.metrics import Metric
from readout.surrogates import Judged

PRIMARY = MetricResult(
    metric="latency", role="primary", arm="new", control="old", better="lower", unit="unit",
    estimand="difference of the mean over rows", method="difference_in_means", estimate=-20.0, std_error=2.0, df=900.0,
    statistic=-10.0, p_value=1e-20, ci_low=-24.0, ci_high=-16.0, relative=-0.2, relative_ci_low=-0.24,
    relative_ci_high=-0.16, control_value=100.0, treatment_value=80.0, n_control=450, n_treatment=452,
    minimum_detectable_effect=5.6, verdict="better", minimum_effect="2%",
)  # fmt: skip
SMALL = replace(
    PRIMARY, estimate=-1.0, ci_low=-1.5, ci_high=-0.5, relative=-0.01, relative_ci_low=-0.015, relative_ci_high=-0.005
)
UNSETTLED = replace(
    PRIMARY, estimate=-1.0, ci_low=-5.0, ci_high=3.0, relative=-0.01, relative_ci_low=-0.05, relative_ci_high=0.03,
    verdict="inconclusive",
)  # fmt: skip
UNKNOWN = replace(
    PRIMARY, estimate=None, std_error=None, ci_low=None, ci_high=None, relative=None, verdict=None,
    minimum_detectable_effect=None, note="not estimated: an arm has no value of it",
)  # fmt: skip
GUARDRAIL = replace(
    PRIMARY, metric="errors", role="guardrail", estimate=0.001, ci_low=-0.002, ci_high=0.004, relative=0.05,
    relative_ci_low=-0.1, relative_ci_high=0.2, verdict="inconclusive", guardrail="holds", minimum_effect=None,
    margin="0.01",
)  # fmt: skip


@dataclass
class Made:
    """Evidence as far as a decision looks at it."""

    metrics: tuple[MetricResult, ...]
    spec: Any
    arms: tuple[str, ...] = ("old", "new")
    sequential: bool = False
    unit_level: bool = True
    sample: Any = None
    segments: Segments = field(default_factory=Segments)
    judged: Judged | None = None

    @property
    def logs(self) -> Any:
        return SimpleNamespace(source=SimpleNamespace(schema={}))

    @property
    def terms(self) -> dict[str, Any]:
        return {}

    def once(self, name: str, make: Any) -> Any:
        return self.judged

    def total(self, name: str) -> int:
        return 1000

    @property
    def treatments(self) -> range:
        return range(1, len(self.arms))

    def effect(self, name: str, arm: int) -> Estimate | None:
        m = next(m for m in self.metrics if m.metric == name and m.arm == self.arms[arm])
        if m.estimate is None:
            return None
        shared = {f: getattr(m, f) for f in Estimate.__slots__ if f not in ("diagnostics",)}
        return Estimate(**shared)


def made(*metrics: MetricResult, arms: tuple[str, ...] = ("old", "new"), **spec: Any) -> Made:
    def size(text: str | None) -> Effect | None:
        if text is None:
            return None
        value = float(text.rstrip("%")) / (100 if text.endswith("%") else 1)
        return Effect(value, text.endswith("%"), text)

    declared = {
        m.metric: Metric(
            name=m.metric, column="c", better=m.better, role=m.role, minimum_effect=size(m.minimum_effect),
            margin=size(m.margin),
        )
        for m in metrics
    }  # fmt: skip
    sections = {"rollback": (), "economics": None, "capacity": None, "surrogate": None,
                "decision": SimpleNamespace(frame=None, alpha=0.05), "design": DESIGNS["user_rct"], **spec}  # fmt: skip
    return Made(metrics, SimpleNamespace(metrics=declared, **sections), arms)


def failed(name: str, action: Any, status: Any = "fail", **by_arm: str) -> Check:
    return Check(
        name, "logging", status, f"what {name} saw", action=action, details={"by_arm": by_arm} if by_arm else {}
    )


ECONOMICS = SimpleNamespace(bar=None)
DESIGNS: dict[str, Any] = {
    "user_rct": UserRCT(control="old", treatment=("new",), shared_state=False),
    "did": DiD(rollout="r"),
    "iv": IV(instrument=("z",)),
    "rdd": RDD(running="x", cutoff=0.0),
    "observational": Observational(control="old", treatment=("new",)),
    "ope": OPE(policy_probability="p"),
}
UNSEEN = replace(failed("pre_trend", None, "warn"), family="identification")
TRIGGER = failed("rollback_trigger", "rollback")
TOP = SegmentResult("tier", "top", "tier = top", PRIMARY, 900, stable=True, recommended=True)
STRICT = replace(TOP, result=replace(GUARDRAIL, margin="0.004"))
DIFFER = Heterogeneity("tier", "latency", "new", 3, 9.0, 2, 90.0, 0.001, 0.002)
FREE = replace(TOP, level="free", said="tier = free", recommended=False, why="latency is not shown better")
SEGMENTS = Segments((TOP, STRICT, FREE), (DIFFER,))
RETAINED = replace(
    PRIMARY, metric="retained", role="long_run", better="higher", estimate=None, std_error=None, ci_low=None,
    ci_high=None, relative=None, verdict=None, note="not in yet",
)  # fmt: skip
MECHANISM = replace(PRIMARY, metric="hits", role="mechanism", better="higher", estimate=0.1)
WAITING = Judged(Metric(name="retained", column="c", better="higher", role="long_run"), ("retained",))
HOLDING = replace(WAITING, model=SimpleNamespace(), prediction=Prediction(0.03, 0.01, 8, 0.007, 0.053, 0.008))
AT_RISK = replace(WAITING, faults=("2 past experiments say nothing yet: at least 5 are needed",))
UNLIKE = replace(AT_RISK, unlike=("2 past experiments are too few to compare with",))
# Each entry alone makes its rule fire; the rules stand in the contract's order.
LADDER: list[tuple[str, str, dict[str, Any]]] = [
    ("rollback_trigger_fired", "rollback", {"checks": [TRIGGER]}),
    ("broken_assignment", "pause", {"checks": [failed("srm", "pause")]}),
    ("later_facts_taken_for_earlier", "instrument", {"checks": [failed("bad_controls", "instrument")]}),
    ("missing_evidence", "instrument", {"checks": [failed("required_fields", "instrument")]}),
    ("clusters_feel_each_other", "stronger_design",
     {"checks": [failed("untreated_outcomes", "stronger_design")], "unit_level": False}),
    ("shared_capacity", "stronger_design", {"checks": [failed("unit_of_randomization", "stronger_design")]}),
    ("design_does_not_hold", "stronger_design", {"checks": [failed("tail_dominance", "stronger_design")]}),
    ("harmed", "rollback", {"guardrail": replace(GUARDRAIL, guardrail="harmed", estimate=0.02, ci_low=0.012)}),
    ("segment_clears_the_bar", "target",
     {"primary": replace(SMALL, verdict="no_effect"), "segments": SEGMENTS}),
    ("primary_inconclusive", "stronger_design", {"primary": UNSETTLED}),
    ("nothing_gained", "rollback", {"checks": [failed("economic_bar", "rollback")]}),
    ("not_clear_enough", "ramp", {"checks": [failed("execution_divergence", "ramp")]}),
    ("long_run_foretold", "holdout", {"long_run": HOLDING}),
    ("long_run_moves_as_before", "ramp", {"long_run": AT_RISK}),
    ("long_run_unknown", "stronger_design", {"long_run": UNLIKE}),
    ("narrower_than_asked", "ramp", {"frame": "ship", "kind": "did"}),
    ("identification_not_shown", "ramp", {"kind": "did", "checks": [UNSEEN]}),
    ("effect_is_of_those_moved", "target", {"kind": "iv"}),
    ("effect_is_local", "target", {"kind": "rdd"}),
    ("shared_state_never_seen", "ramp", {"kind": "ope"}),
    ("not_randomized", "ramp", {"kind": "observational"}),
    ("keep_what_runs", "ship", {"kind": "did"}),
    ("all_clear", "ship", {}),
]  # fmt: skip


MAY_NOT_SHIP = (
    "narrower_than_asked", "identification_not_shown", "effect_is_of_those_moved", "effect_is_local",
    "shared_state_never_seen", "not_randomized",
)  # fmt: skip


def decision_of(*entries: dict[str, Any], **spec: Any) -> Any:
    checks = [c for e in entries for c in e.get("checks", [])]
    primary = next((e["primary"] for e in entries if "primary" in e), PRIMARY)
    guardrail = next((e["guardrail"] for e in entries if "guardrail" in e), GUARDRAIL)
    kinds, frames = ([e[key] for e in entries if key in e] for key in ("kind", "frame"))
    design, framed = DESIGNS[[*kinds, "user_rct"][0]], SimpleNamespace(frame=[*frames, None][0], alpha=0.05)
    spec = {"design": design, "decision": framed, **spec}
    segments = next((e["segments"] for e in entries if "segments" in e), Segments())
    unit_level = all(e.get("unit_level", True) for e in entries)
    judged = next((e["long_run"] for e in entries if "long_run" in e), None)
    longer = (RETAINED, MECHANISM) if judged is not None else ()
    evidence = made(primary, guardrail, *longer, **spec)
    evidence = replace(evidence, unit_level=unit_level, segments=segments, judged=judged)
    evidence.sample = SimpleNamespace(unit="unit", method="difference_in_means")
    return decide(evidence, checks)


def test_the_table_has_the_rules_in_the_contracts_order():
    assert [rule.rule for rule in rules()] == [name for name, _, _ in LADDER]


@pytest.mark.parametrize(("rule", "action", "entry"), LADDER, ids=[name for name, _, _ in LADDER])
def test_each_rule_fires_alone(rule, action, entry):
    decision = decision_of(entry)
    assert (decision.rule, decision.action, decision.by_arm) == (rule, action, {"new": action})
    assert decision.treatment == "new"
    assert decision.reasons
    assert decision.next_step


@pytest.mark.parametrize(("first", "second"), [*itertools.combinations(range(len(LADDER)), 2)])
def test_of_two_rules_the_earlier_wins(first, second):
    found = decision_of(LADDER[first][2], LADDER[second][2]).rule
    # What past experiments foretell is shipped with a holdout only by a design that may ship.
    capped = LADDER[first][0] == "long_run_foretold" and LADDER[second][0] in MAY_NOT_SHIP
    assert found == ("long_run_moves_as_before" if capped else LADDER[first][0])


@pytest.mark.parametrize(
    ("entry", "rule"),
    [
        *(({"checks": [failed(c, "pause")]}, "broken_assignment")
          for c in ("eligibility", "exposure_time", "arm_contamination", "treatment_start", "covariate_balance")),
        ({"checks": [failed("completed_only", "instrument")]}, "missing_evidence"),
        *(({"checks": [failed(c, "stronger_design")]}, "shared_capacity")
          for c in ("untreated_outcomes", "mixed_batches")),
        *(({"checks": [failed(c, "stronger_design")]}, "design_does_not_hold")
          for c in ("carryover", "block_balance", "overlap", "pre_trend", "density")),
        ({"checks": [failed("capacity_limit", "rollback")]}, "harmed"),
        ({"primary": replace(PRIMARY, verdict="worse")}, "harmed"),
        ({"primary": UNKNOWN}, "primary_inconclusive"),
        ({"primary": replace(SMALL, verdict="no_effect")}, "nothing_gained"),
        ({"primary": SMALL}, "not_clear_enough"),
        ({"guardrail": replace(GUARDRAIL, guardrail="inconclusive")}, "not_clear_enough"),
        ({"checks": [failed("economic_bar", None, "warn")]}, "not_clear_enough"),
        ({"checks": [failed("capacity_limit", None, "warn")]}, "not_clear_enough"),
        # What only warns, or is a guardrail by margin alone, stands in nobody's way.
        ({"checks": [failed("srm", None, "warn"), failed("fallback", None, "warn")]}, "all_clear"),
        ({"checks": [failed("mixed_batches", None, "warn")]}, "all_clear"),
        ({"guardrail": replace(GUARDRAIL, role="secondary", guardrail="harmed")}, "all_clear"),
        ({"checks": [failed("economic_bar", None, "skip")]}, "all_clear"),
    ],
)  # fmt: skip
def test_every_condition_of_the_table(entry, rule):
    assert decision_of(entry).rule == rule


def test_a_net_value_that_could_not_be_judged_ramps_at_most():
    skipped = {"checks": [failed("economic_bar", None, "skip")]}
    decision = decision_of(skipped, economics=ECONOMICS)
    assert decision.action == "ramp"
    assert "economic_bar could not be judged" in decision.headline


def test_a_fired_trigger_beats_a_better_average_and_everything_else():
    assert decision_of({"checks": [TRIGGER]}).action == "rollback"
    everything = [entry for _, _, entry in LADDER]
    assert decision_of(*everything).rule == "rollback_trigger_fired"


def test_one_inconclusive_of_two_primaries_settles_nothing_and_only_it_is_named():
    second = replace(UNSETTLED, metric="cost")
    decision = decide(made(PRIMARY, second), [])
    assert decision.rule == "primary_inconclusive"
    assert (
        decision.headline == "Run a stronger design: the effect of 'new' is not settled (cost -1.0 % [-5.0 %, +3.0 %])."
    )
    assert decision.reasons == (
        "cost -1.0 % [-5.0 %, +3.0 %]: inconclusive",
        "Measured: latency -20.0 % [-24.0 %, -16.0 %]",
    )


def two_arms(**plus: Any) -> Made:
    other = {"arm": "plus", **plus}
    return made(
        PRIMARY, GUARDRAIL, replace(PRIMARY, **other), replace(GUARDRAIL, arm="plus"), arms=("old", "new", "plus")
    )


def test_the_headline_is_of_the_arm_that_goes_furthest():
    decision = decide(two_arms(verdict="worse", estimate=20.0), [])
    assert (decision.action, decision.treatment) == ("ship", "new")
    assert decision.by_arm == {"new": "ship", "plus": "rollback"}
    assert "plus" not in decision.headline


def test_of_two_arms_with_one_action_the_headline_is_of_the_better():
    assert decide(two_arms(estimate=-30.0), []).treatment == "plus"
    assert decide(two_arms(estimate=-10.0), []).treatment == "new"
    assert decide(two_arms(), []).treatment == "new"


@pytest.mark.parametrize("name", ["rollback_trigger", "economic_bar"])
def test_a_check_that_tells_arms_apart_condemns_only_its_arm(name):
    decision = decide(two_arms(), [failed(name, "rollback", new="fail", plus="pass")])
    assert decision.by_arm == {"new": "rollback", "plus": "ship"}
    assert (decision.treatment, decision.action) == ("plus", "ship")


def test_an_arm_that_a_check_does_not_name_is_not_condemned_by_the_other():
    decision = decide(two_arms(), [failed("tail_dominance", "stronger_design", new="fail")])
    assert decision.by_arm == {"new": "stronger_design", "plus": "ship"}


def test_an_assignment_failure_condemns_every_arm():
    assert decide(two_arms(), [failed("srm", "pause")]).by_arm == {"new": "pause", "plus": "pause"}


def test_a_guardrail_of_one_arm_does_not_hold_back_the_other():
    evidence = made(
        PRIMARY, replace(GUARDRAIL, guardrail="harmed"), replace(PRIMARY, arm="plus"), replace(GUARDRAIL, arm="plus"),
        arms=("old", "new", "plus"),
    )  # fmt: skip
    assert decide(evidence, []).by_arm == {"new": "rollback", "plus": "ship"}


FLAT = {"primary": replace(SMALL, verdict="no_effect")}


@pytest.mark.parametrize(
    ("entry", "rule"),
    [
        ({"primary": UNSETTLED, "segments": SEGMENTS}, "segment_clears_the_bar"),
        ({"primary": UNKNOWN, "segments": SEGMENTS}, "segment_clears_the_bar"),
        # The average stands by itself.
        ({"segments": SEGMENTS}, "all_clear"),
        ({"primary": SMALL, "segments": SEGMENTS}, "not_clear_enough"),
        # Recommended is not enough: stable, operable, and different from the rest.
        ({**FLAT, "segments": Segments((replace(TOP, recommended=False), FREE), (DIFFER,))}, "nothing_gained"),
        ({**FLAT, "segments": Segments((replace(TOP, stable=False), FREE), (DIFFER,))}, "nothing_gained"),
        ({**FLAT, "segments": Segments((replace(TOP, stable=None), FREE), (DIFFER,))}, "nothing_gained"),
        ({**FLAT, "segments": Segments((replace(TOP, descriptive=True), FREE), (DIFFER,))}, "nothing_gained"),
        ({**FLAT, "segments": Segments((TOP, FREE), (replace(DIFFER, p_value_holm=0.06),))}, "nothing_gained"),
        ({**FLAT, "segments": Segments((TOP, FREE), (replace(DIFFER, p_value_holm=None),))}, "nothing_gained"),
        ({**FLAT, "segments": Segments((TOP, FREE), (replace(DIFFER, segment="model"),))}, "nothing_gained"),
        ({**FLAT, "segments": Segments((TOP, FREE), (replace(DIFFER, metric="cost"),))}, "nothing_gained"),
        # Where every level that was read pays, nobody has to be picked.
        ({**FLAT, "segments": Segments((TOP, STRICT), (DIFFER,))}, "nothing_gained"),
        ({**FLAT, "segments": Segments((TOP, replace(FREE, recommended=True)), (DIFFER,))}, "nothing_gained"),
    ],
)
def test_when_a_segment_is_targeted(entry, rule):
    assert decision_of(entry).rule == rule


def test_a_targeted_segment_is_named_with_the_average_first():
    decision = decision_of({**FLAT, "segments": SEGMENTS})
    assert decision.headline == (
        "Ship 'new' to tier = top only: latency -20.0 % [-24.0 %, -16.0 %]; the average effect is too small."
    )
    assert decision.reasons == (
        "On average: latency -1.0 % [-1.5 %, -0.5 %]: no effect",
        "tier = top: latency -20.0 % [-24.0 %, -16.0 %]",
        "in tier = top, errors holds",
    )
    assert decision.stop_if == (
        "in tier = top, errors rises by more than 0.004",
        "in tier = top, latency is no better than under 'old'",
    )


# How it reads


def texts(decision: Any) -> list[str]:
    return [decision.headline, *decision.reasons, *decision.would_change, *decision.stop_if, decision.next_step]


@pytest.mark.parametrize(("rule", "action", "entry"), LADDER, ids=[name for name, _, _ in LADDER])
def test_texts_read_clean(rule, action, entry):
    for text in texts(decision_of(entry)):
        assert text.strip() == text != ""
        assert not re.search(
            r"\(\)|\{|\}|None|\bnan\b|\binf\b|\.\.|;\s*\)|\(\s*;|,\s*\.|  |Effect\(|no_effect", text
        ), text
        assert not re.search(r"\b(\w+) \1\b", text), text


def test_placeholders_of_the_table_are_known():
    known = {"treatment", "control", "primary", "guardrails", "checks", "found", "sample", "then", "whom", "levels"}
    known |= {"back", "keep", "log", "limited", "awaited", "awaited_is", "long_run_shows", "holdout", "beyond_ramp"}
    known |= {"wait", "average", "mend", "does"}
    for rule in rules():
        for text in (rule.headline, *rule.would_change, rule.next_step):
            assert {field for _, field, _, _ in Formatter().parse(text) if field is not None} <= known


def test_clusters_that_already_switch_are_not_told_to_switch():
    entry = {"checks": [failed("untreated_outcomes", "stronger_design")]}
    assert "design.kind: switchback" in decision_of(entry).next_step
    together = decision_of({**entry, "unit_level": False}).next_step
    assert together == "Switch those clusters together, as one, between 'old' and 'new' and read that."


def test_ship_says_what_held():
    decision = decision_of({})
    assert decision.headline == "Ship 'new': latency -20.0 % [-24.0 %, -16.0 %], and its guardrail holds."
    assert decision.reasons == (
        "latency -20.0 % [-24.0 %, -16.0 %]: better",
        "guardrail errors holds (margin 0.01): +0.00100 [-0.00200, +0.00400]",
    )
    two = decide(made(PRIMARY, GUARDRAIL, replace(GUARDRAIL, metric="cost")), [])
    assert two.headline.endswith("and every guardrail holds.")
    assert decide(made(PRIMARY), []).headline.endswith("and no guardrail was named.")


def test_an_effect_is_told_on_the_scale_of_its_margin_or_minimum_effect():
    assert decisions.effect_in_words(PRIMARY) == "latency -20.0 % [-24.0 %, -16.0 %]"
    assert decisions.effect_in_words(replace(PRIMARY, minimum_effect="2")) == "latency -20.00 [-24.00, -16.00]"
    assert decisions.effect_in_words(replace(GUARDRAIL, margin="2%")) == "errors +5 % [-10 %, +20 %]"
    without = replace(PRIMARY, relative=None, relative_reason="control's value is not positive")
    assert decisions.effect_in_words(without) == "latency -20.00 [-24.00, -16.00]"


def test_harm_is_told_without_the_good_news():
    harmed = replace(GUARDRAIL, guardrail="harmed", estimate=0.02, ci_low=0.012, ci_high=0.028)
    decision = decision_of({"guardrail": harmed})
    assert decision.headline == "Roll back 'new': it does harm (errors is harmed)."
    assert decision.reasons == ("guardrail errors is harmed (margin 0.01): +0.0200 [+0.0120, +0.0280]",)


def test_a_metric_named_like_a_check_is_still_a_metric():
    named = replace(GUARDRAIL, metric="srm", guardrail="inconclusive")
    decision = decide(made(PRIMARY, named), [Check("srm", "assignment", "pass", "as configured")])
    assert "(srm is not shown safe)" in decision.headline
    assert decision.reasons[0].startswith("guardrail srm is not shown safe (margin 0.01): ")


def test_what_was_not_estimated_is_said_once():
    decision = decision_of({"primary": UNKNOWN})
    assert decision.reasons == ("latency was not estimated: an arm has no value of it",)
    assert decision.next_step == "Mend what keeps latency from being estimated, then read again."


def test_a_design_that_does_not_fit_marks_the_number_as_no_effect():
    decision = decision_of(LADDER[5][2])
    assert decision.reasons[-1] == "Measured, not to be read as the effect: latency -20.0 % [-24.0 %, -16.0 %]"
    assert "switchback" in decision.next_step
    assert "switchback" not in decision_of(LADDER[6][2]).next_step


@pytest.mark.parametrize(
    ("primary", "said"),
    [
        # (detectable / wanted)² times: (5.6 / 2)² = 7.84
        (UNSETTLED, "With 80 % power, seeing an effect of 2% on latency takes about 7.8 times these 902 units."),
        (replace(UNSETTLED, minimum_effect="0.05"),
         "With 80 % power, seeing an effect of 0.05 on latency takes about 13,000 times these 902 units."),
        # the window could see it: half of it takes 4 · (5.6 / 6)² = 3.48 times as many
        (replace(UNSETTLED, minimum_effect="6%"),
         "With 80 % power this window could see an effect of 6% on latency; "
         "seeing half of it takes about 3.5 times these 902 units."),
        (replace(UNSETTLED, minimum_effect=None),
         "With 80 % power, seeing an effect on latency as large as the one measured takes about 31 times these "
         "902 units. Set minimum_effect to plan for the smallest effect worth acting on."),
        (replace(UNSETTLED, minimum_effect=None, estimate=0.0),
         "Set minimum_effect to plan for the smallest effect on latency worth acting on."),
    ],
)  # fmt: skip
def test_the_sample_that_it_would_take(primary, said):
    assert decision_of({"primary": primary}).next_step == said


def test_what_stops_the_ramp():
    trigger = {"metric": None, "expr": None, "where": None, "no_movement": False, "above": None}
    evidence = made(
        PRIMARY, GUARDRAIL, replace(GUARDRAIL, metric="quality", better="higher", margin="2%"),
        replace(GUARDRAIL, metric="cost", margin=None),
        rollback=(
            SimpleNamespace(**{**trigger, "metric": "errors", "above": 0.02}),
            SimpleNamespace(**{**trigger, "expr": "a is null", "where": "q > 3", "above": 0.1}),
            SimpleNamespace(**{**trigger, "metric": "latency", "no_movement": True}),
        ),
        economics=ECONOMICS,
    )  # fmt: skip
    assert decide(evidence, []).stop_if == (
        "errors rises above 0.02 in treated rows",
        "the share with a is null where q > 3 rises above 0.1 in treated rows",
        "latency does not move",
        "errors rises by more than 0.01",
        "quality falls by more than 2%",
        "cost rises beyond chance",
        "net value falls below 0 USD per 1,000 requests against control",
    )
