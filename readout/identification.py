"""What must be true for a design without randomization to tell an effect, and which check could break it."""

from __future__ import annotations

from collections.abc import Sequence

from readout.results import Assumption, Check, Standing
from readout.spec.designs import IV, OPE, RDD, DiD, Observational, SyntheticControl
from readout.spec.model import Spec

# What must be true, the checks that could break it, and what none of them can see.
Line = tuple[str, tuple[str, ...], str]


def assumptions(spec: Spec, checks: Sequence[Check]) -> tuple[Assumption, ...]:
    """The assumptions of the spec's design, with how they stand; none where arms were drawn."""
    return tuple(_standing(line, checks) for line in (*_story(spec), *_adjusted(spec)))


def unproven(spec: Spec, checks: Sequence[Check]) -> list[Check]:
    """Checks of the design's assumptions that did not pass."""
    names = {name for _, by, _ in _story(spec) for name in by}
    return [c for c in checks if c.name in names and c.family == "identification" and c.status != "pass"]


def _standing(line: Line, checks: Sequence[Check]) -> Assumption:
    what, names, unseen = line
    found = [c for c in checks if c.name in names]
    states = {c.status for c in found}
    standing: Standing
    if "fail" in states:
        standing = "broken"
    elif "warn" in states:
        standing = "in doubt"
    else:
        standing = "not seen broken" if "pass" in states else "cannot be seen"
    return Assumption(what, tuple(c.name for c in found), standing, unseen)


def _story(spec: Spec) -> tuple[Line, ...]:
    design = spec.design
    match design:
        case Observational():
            return _observational(design)
        case DiD():
            return _did(design)
        case SyntheticControl():
            return _SYNTHETIC
        case IV():
            return _iv(design)
        case RDD():
            return _rdd(design)
        case OPE():
            return _ope(spec)
    return ()


_CONTROLS: Line = (
    "Nothing that is adjusted for was moved by the action, and requests were not left out for how they ended.",
    ("bad_controls", "completed_only"),
    "",
)


def _adjusted(spec: Spec) -> tuple[Line, ...]:
    """What must be true of the adjusters that a design may go without."""
    design = spec.design
    named = design.adjust if isinstance(design, DiD | IV) else design.covariates if isinstance(design, RDD) else ()
    return (_CONTROLS,) if named else ()


def _observational(design: Observational) -> tuple[Line, ...]:
    seen = ("covariate_balance", "placebo") if design.negative_control is not None else ("covariate_balance",)
    return (
        (
            "Among requests that are alike in what is adjusted for, which action ran is as good as random: nothing "
            "that is not logged moved both the action and the outcome.",
            ("required_fields", *seen),
            "No check can show it; the sensitivity analysis says how strong an unlogged cause would have to be.",
        ),
        (
            "Every kind of request had a real chance of either action.",
            ("overlap", "weight_concentration"),
            "A model of the action that misses how it was chosen sees overlap where there is none.",
        ),
        _CONTROLS,
        (
            "One request's action does not change another's outcome.",
            (),
            "On a shared queue it does; with the live state adjusted for, what is left is the effect on a request of "
            "its own action, not that of a policy on all traffic.",
        ),
    )


def _ope(spec: Spec) -> tuple[Line, ...]:
    estimated = spec.estimator.options["propensity"] != "logged"
    modelled = spec.estimator.method == "direct_method"
    if modelled:
        chance: Line = (
            "The model of the rewards is right for every action that the target policy takes: nothing corrects it.",
            ("left_out",),
            "Without logged probabilities no check can show it; with them doubly_robust corrects the model.",
        )
    elif estimated:
        chance = (
            "Requests that are alike in what is modelled met each action by chance: nothing that is not logged moved "
            "both the action and the outcome, and the model of the action is right.",
            ("required_fields",),
            "No check can show it: the probabilities were estimated, not logged.",
        )
    else:
        chance = (
            "The logged probabilities are those with which the logging policy drew its actions; then nothing unlogged "
            "moved both the action and the outcome.",
            ("propensity_calibration",),
            "Where the router draws with them it holds by design; probabilities made up afterwards are guesses.",
        )
    shares = (
        "It shares queues, cache or fleets: these values are those of sending one request elsewhere while the others "
        "go on as they did, and the decision goes no further than a limited ramp."
    )
    return (
        chance,
        (
            "Every action that the target policy takes had a real chance wherever it takes it.",
            ("support", "weight_concentration"),
            "Within a cell the logs may still lack what the target does; the memo names the columns that cells are of.",
        ),
        (
            "What the target policy reads stood before the action, and requests were not left out for how they ended.",
            ("bad_controls", "completed_only"),
            "",
        ),
        (
            "One request's action does not change another's outcome (no interference).",
            (),
            shares if spec.design.shared_state else "The spec says that the policy changes nothing other traffic uses.",
        ),
    )


def _did(design: DiD) -> tuple[Line, ...]:
    given = " of the same adjusters" if design.adjust else ""
    return (
        (
            f"Without the rollout, treated units would have changed as the untreated{given} did (parallel trends).",
            ("pre_trend",),
            "The past makes it likely at best. The breakdown value says how far trends may part before the sign goes.",
        ),
        (
            "Units did not react before their rollout, and stayed treated after it.",
            ("pre_trend", "treatment_start"),
            "",
        ),
        (
            "The rollout of some units does not reach the others.",
            (),
            "Units on one shared queue or fleet break this; compare units that share no capacity.",
        ),
        (
            "Nothing else happened to the treated alone when they were rolled out.",
            (),
            "Name incidents and launches under events: the memo marks those in the window.",
        ),
    )


_SYNTHETIC: tuple[Line, ...] = (
    (
        "A weighted mean of the untreated units, alike before the rollout, would have stayed alike after it.",
        ("pre_period_fit", "placebo"),
        "A good fit over few periods may be luck: see the placebos in time.",
    ),
    (
        "The treated ran the treatment from the rollout on, and the untreated units never did.",
        ("treatment_start",),
        "",
    ),
    (
        "The untreated units were not reached by the rollout, and nothing else happened to the treated alone.",
        (),
        "Units that share a queue or a fleet with the treated are no donors; name incidents under events.",
    ),
)


def _iv(design: IV) -> tuple[Line, ...]:
    several = len(design.instrument) > 1
    more = " With several instruments a note says where they disagree." if several else ""
    push = (
        "It moves everybody's action the same way, if it moves it"
        if design.control is None
        else ("It keeps nobody from the action whom it does not push towards it")
    )
    return (
        ("The instrument moves the action, and not by a little.", ("first_stage",), ""),
        (
            f"The instrument is as good as random{', given what is adjusted for' * bool(design.adjust)}.",
            ("srm", "covariate_balance"),
            "Only where it was drawn is this known.",
        ),
        (
            "It moves the outcome through the action alone (exclusion).",
            (),
            "No check can show it: assignment that users see, or that loads a shared queue, moves outcomes by itself."
            + more,
        ),
        (
            f"{push} (no defiers).",
            (),
            "Where some are moved the other way, the effect is of a mix in which they count against the others.",
        ),
    )


def _rdd(design: RDD) -> tuple[Line, ...]:
    sharp: tuple[Line, ...] = (
        ("From the cutoff on the treatment ran, and below it nowhere.", ("treatment_start",), ""),
    )
    fuzzy: tuple[Line, ...] = (
        ("Crossing the cutoff changes who is treated, and not by a little.", ("first_stage",), ""),
        (
            "Crossing moves who is treated one way only (no defiers), and moves the outcome through the treatment "
            "alone.",
            (),
            "The effect is on those whom crossing treats; what the rule does beside the treatment would be taken "
            "for it.",
        ),
    )
    return (
        *(fuzzy if design.fuzzy else sharp),
        (
            "Nobody places requests on one side of the cutoff on purpose.",
            ("density",),
            "Sorting that moves as many up as down leaves no trace in the density.",
        ),
        (
            "Nothing but the treatment changes at the cutoff.",
            ("covariate_continuity",),
            "Another rule with the same cutoff would be taken for the effect.",
        ),
        (
            "Without the treatment the outcome would run smoothly through the cutoff.",
            ("bandwidth_sensitivity", "placebo"),
            "A bend that is sharper than the bandwidth is wide looks like a jump.",
        ),
        (
            "One request's treatment does not change another's outcome.",
            (),
            "On a shared queue or fleet it does; both sides of the cutoff then meet the same load, and what the rule "
            "does to the load is not in the effect.",
        ),
    )
