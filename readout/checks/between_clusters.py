"""Does what one cluster is given reach the others? For switchbacks whose clusters switch apart."""

from __future__ import annotations

import numpy as np

from estimators.inference import EstimationError, minimum_detectable_effect, two_sided_p
from estimators.spill import spill_between_clusters
from readout.checks.base import Slope
from readout.evidence import Evidence
from readout.samples import Blocks
from readout.terms import Term


def watched(evidence: Evidence) -> list[Term]:
    """Primary and guardrail metrics that are sums over rows."""
    found = []
    for name, metric in evidence.spec.metrics.items():
        if metric.role in ("primary", "guardrail") and metric.on is None and metric.quantile is None:
            found.append(evidence.terms[name])
    return found


def slope(evidence: Evidence, sample: Blocks, term: Term, level: float) -> Slope | str:
    """Change of control's outcome from no to all other clusters treated; or why it is not known."""
    try:
        cells, others = sample.cells(term, 0), sample.others_treated(term)
    except EstimationError as error:
        return str(error)
    known = ~np.isnan(others) & (cells.den > 0.0)
    if not known.any():
        return "no control block has another cluster beside it"
    cells, others = cells.take(known), others[known]
    y = cells.num / cells.den
    weights = cells.den if sample.weights == "rows" else np.ones(len(y))
    try:
        estimate, se, df = spill_between_clusters(
            y,
            others,
            cluster=cells.cluster,
            block=cells.block,
            hour=cells.hour,
            weekday=cells.weekday,
            weights=weights,
        )
        if not se > 0.0:
            return "does not vary"
    except EstimationError as error:
        return str(error)
    mean = float(np.average(y, weights=weights))
    p = two_sided_p(estimate / se, df)
    return Slope(term.name, estimate, se, p, mean, minimum_detectable_effect(se, df, level), len(y))
