"""Whether the energy of every arm was measured alike: measured energy held against modelled is no effect of an arm."""

from __future__ import annotations

from collections.abc import Mapping

from readout.energy.model import CARBON, ENERGY
from readout.energy.rows import MODELLED, SHARE
from readout.evidence import Evidence
from readout.memo.numbers import number, percent
from readout.terms import Term
from readout.text import named

ARMS = "energy by arm"
# Of an arm's energy: modelled so much more of it than of another's is told; a shift as large as the last is a fault.
WORTH_A_WORD, TOO_FAR = 0.05, 0.01
DECIDES = ("primary", "guardrail")


def uses_energy(term: Term) -> bool:
    """Whether a metric is read from attributed energy or its carbon."""
    roots = {*term.num.meta.root_names(), *(() if term.den is None else term.den.meta.root_names())}
    return not roots.isdisjoint((ENERGY, CARBON))


def measured_share(row: Mapping[str, float]) -> float | None:
    """Share of an arm's energy that comes from measured batches; of `ARMS`, a row."""
    return 1 - row[MODELLED] / row[SHARE] if row[SHARE] > 0 else None


def measured_apart(evidence: Evidence) -> tuple[bool, str, str]:
    """Whether metrics of energy compare arms of which one is measured and the other modelled.

    The energy model is off by a factor, the middle one of measured over modelled energy. An arm of which a part ``u``
    more is modelled is off by ``u × |factor - 1|`` more.

    Returns:
        Whether the decision hangs on it, what was found, and that in a few words; empty where nothing is to be said.
    """
    found = evidence.attributed
    if found is None or (factor := found.totals.factor_median) is None or ARMS not in evidence.tables:
        return False, "", ""
    using = [m for m in evidence.spec.metrics.values() if uses_energy(evidence.terms[m.name])]
    by_code = {row["arm"]: row for row in evidence.tables[ARMS].iter_rows(named=True) if row["arm"] is not None}
    parts = {
        arm: part
        for code, arm in enumerate(evidence.arms)
        if code in by_code and (part := measured_share(by_code[code])) is not None
    }
    if not using or len(parts) < 2:
        return False, "", ""
    low, high = min(parts, key=lambda arm: parts[arm]), max(parts, key=lambda arm: parts[arm])
    apart = parts[high] - parts[low]
    shift = apart * abs(factor - 1)
    if apart <= WORTH_A_WORD and shift <= TOO_FAR:
        return False, "", ""
    message = (
        f"{percent(parts[high])} of the energy of {named(high)} was measured and {percent(parts[low])} of that of "
        f"{named(low)}, the rest is modelled; measured energy is {number(factor)} times the modelled, which alone "
        f"sets the arms about {percent(shift)} apart in {', '.join(named(m.name) for m in using)}: measure both arms "
        "alike, or leave attribution.columns.measured_wh out"
    )
    decides = shift > TOO_FAR and any(metric.role in DECIDES for metric in using)
    return decides, message, f"energy is measured in {named(high)} and modelled in {named(low)}"
