"""Are the arms alike in what was known before the decision?"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import polars as pl

from estimators import difference_in_means
from estimators.inference import EstimationError
from estimators.moments import Moments
from readout.checks.base import separation_p, share_shift, threshold
from readout.evidence import Evidence
from readout.logs import Logs
from readout.logs.values import label
from readout.reduce import Table, pilot
from readout.results import Check
from readout.samples import Clusters, Sample, Units
from readout.spec.model import Spec
from readout.terms import BEFORE, LEVEL, SEGMENT, Term, before_term, eligible_only

FEATURE = "@feature "
LEVELS = "levels "
# A feature with more values than this is an identifier, not a group; its balance is not tested.
MOST_LEVELS = 50
# Of more units than about this, a sample is enough to compare labels on.
MOST_UNITS = 2_000_000
UNITS_A_ROW = "@units a row"
# A p-value that is worth a word, not yet a pause.
SUSPICIOUS = 0.05


@dataclass(frozen=True, slots=True)
class Difference:
    """One feature against control: standardized difference and p-value.

    ``before`` as in the contract's ``balance`` table: before any adjustment.
    """

    covariate: str
    arm: str
    before: float
    p_value: float


def terms(spec: Spec, logs: Logs) -> list[Term]:
    """Numeric and boolean features as outcomes, and primaries and guardrails in the pre-period."""
    return features(spec, logs) + earlier(spec, logs)


def earlier(spec: Spec, logs: Logs) -> list[Term]:
    """Primaries and guardrails over the pre-period's rows, quantiles aside; nothing without a pre-period."""
    if logs.before is None:
        return []
    metrics = [m for m in spec.metrics.values() if m.role in ("primary", "guardrail") and m.quantile is None]
    return [before_term(metric, spec, logs) for metric in metrics]


def features(spec: Spec, logs: Logs) -> list[Term]:
    """Numeric and boolean features as outcomes."""
    mask = eligible_only(spec, logs)
    found = []
    for name in logs.columns.get("features", ()):
        dtype = logs.dtype(name)
        if dtype.is_numeric() or dtype == pl.Boolean:
            number = pl.col(name).cast(pl.Float64 if dtype.is_float() or dtype.is_decimal() else pl.Int64)
            found.append(Term(FEATURE + name, mask(number)))
    return found


def label_tables(spec: Spec, logs: Logs, sample: Sample) -> list[Table]:
    """Counts of each label of the other features by independent group: by unit, where units are randomized."""
    mask = eligible_only(spec, logs)
    names = [n for n in logs.columns.get("features", ()) if logs.dtype(n) in (pl.String, pl.Categorical, pl.Enum)]
    if not names:
        return []
    asked = [pl.col(n).n_unique().alias(n) for n in names]
    keys, where = sample.level_keys(), sample.rows & mask(pl.lit(True)).fill_null(False)
    if isinstance(sample, Units):
        asked.append((pl.col("@unit").n_unique() / pl.len()).alias(UNITS_A_ROW))
    seen = pilot(logs.frame, asked, logs.source.rows).max().row(0, named=True)
    if isinstance(sample, Units):
        unit = pl.col("@unit").hash(0)
        keys = {"arm": pl.col("@arm_code"), "unit": unit}
        if (one_in := math.ceil((seen[UNITS_A_ROW] or 0.0) * logs.source.rows / MOST_UNITS)) > 1:
            where &= unit % one_in == 0
    return [
        Table(
            LEVELS + name,
            {**keys, "level": label(pl.col(name), logs.dtype(name)).fill_null("(null)")},
            where=where,
        )
        for name in names
        if seen[name] <= MOST_LEVELS
    ]


def covariate_balance(evidence: Evidence) -> Check:
    """Features, covariates, and outcomes in the pre-period, by arm, at the unit of randomization.

    P-values are adjusted for the number of comparisons (Bonferroni).
    """
    limit = threshold(evidence.spec, "covariate_balance", 0.001)
    compared = {name: FEATURE + name for name in evidence.logs.columns.get("features", ())}
    compared |= {term.label: term.name for term in earlier(evidence.spec, evidence.logs)}
    compared |= _adjusted_for(evidence, compared)
    if not compared:
        return Check(
            "covariate_balance", "balance", "skip", "no pre-decision features are declared (logs.columns.features)"
        )
    found = {
        (name, arm): _difference(evidence, key, arm) for arm in evidence.treatments for name, key in compared.items()
    }
    tested = [Difference(name, evidence.arms[arm], *one) for (name, arm), one in found.items() if one is not None]
    left = [
        name
        for name, key in compared.items()
        if not key.startswith(LEVEL) and all(found[name, arm] is None for arm in evidence.treatments)
    ]
    untested = f"; not compared (no values, one value, a list or a time, or over {MOST_LEVELS} levels): " + ", ".join(
        left
    )
    untested = untested if left else ""
    if not tested:
        return Check("covariate_balance", "balance", "skip", "nothing that is declared could be compared" + untested)
    worst = min(tested, key=lambda d: (d.p_value, -abs(d.before)))
    largest = max(tested, key=lambda d: abs(d.before))
    p = min(1.0, len(tested) * worst.p_value)
    numbers = (None, p, p, limit)
    rows = [
        {"covariate": d.covariate, "arm": d.arm, "before": d.before, "after": None, "p_value": d.p_value}
        for d in tested
    ]
    details = {"balance": rows}
    said = f"{worst.covariate} differs between control and {worst.arm}"
    after = f"(standardized difference {worst.before:+.3f}, p = {p:.2g} after {_comparisons(len(tested))}){untested}"
    if p < limit:
        message = f"{said} beyond chance {after}"
        return Check("covariate_balance", "balance", "fail", message, *numbers, "pause", details)
    if p < SUSPICIOUS:
        return Check("covariate_balance", "balance", "warn", f"{said} {after}", *numbers, None, details)
    message = (
        f"{_comparisons(len(tested))}; largest standardized difference {abs(largest.before):.3f} ({largest.covariate})"
    )
    return Check("covariate_balance", "balance", "pass", message + untested, *numbers, None, details)


def _comparisons(n: int) -> str:
    return f"{n} comparison{'s' * (n != 1)}"


def _adjusted_for(evidence: Evidence, compared: Collection[str]) -> dict[str, str]:
    """Columns that metrics are adjusted for and that are not compared yet; text by its levels, metrics aside."""
    terms = (covariate for term in evidence.terms.values() for covariate in term.covariates)
    columns = {term.label: term.name for term in terms if not term.name.startswith((BEFORE, SEGMENT))}
    features = evidence.logs.columns.get("features", ())
    return {
        label: name
        for label, name in columns.items()
        if label not in compared and not (name.startswith(LEVEL) and label.partition(" = ")[0] in features)
    }


def _difference(evidence: Evidence, name: str, arm: int) -> tuple[float, float] | None:
    """Standardized difference and p-value of one feature, or of an outcome in the pre-period."""
    if name in evidence.terms:
        if isinstance(evidence.sample, Units | Clusters):
            return _of_unit_means(evidence.sample, evidence.terms[name], arm)
        shift = share_shift(evidence, name, arm)
        if shift is None:
            return None
        effect = evidence.effect(name, arm)
        if effect is None:
            return shift.estimate, shift.p_value
        return effect.statistic * math.sqrt(1 / effect.n_control + 1 / effect.n_treatment), effect.p_value
    levels = LEVELS + name.removeprefix(FEATURE)
    if levels not in evidence.tables:
        return None
    frame = evidence.tables[levels]
    if isinstance(evidence.sample, Units):
        return _of_unit_shares(frame, arm)
    control, control_total = evidence.sample.level_shares(frame, 0)
    treated, treated_total = evidence.sample.level_shares(frame, arm)
    if not control_total.sum() or not treated_total.sum() or np.hstack([control, treated]).any(axis=1).sum() < 2:
        return None
    if control.shape[1] == 1 and treated.shape[1] == 1 and not isinstance(evidence.sample, Clusters):
        return _chi_square(control[:, 0], treated[:, 0])
    counts = evidence.sample.counts()
    return _by_level(control, control_total, treated, treated_total, separation_p(counts[0], counts[arm]))


def _of_unit_means(units: Units | Clusters, term: Term, arm: int) -> tuple[float, float] | None:
    """Every unit's own mean counts once: how many rows a unit sends is an outcome, and may differ by arm."""
    try:
        sums = [units.arrays(term, code) for code in (0, arm)]
    except EstimationError:
        return None
    if term.per_unit and isinstance(units, Units):
        values = [num for num, _ in sums]
    elif term.den is not None and (isinstance(units, Units) or not all((den > 0).all() for _, den in sums)):
        # A ratio's denominator may be zero in a unit: what it adds to the ratio of both arms together is compared.
        ratio = sum(num.sum() for num, _ in sums) / (sum(den.sum() for _, den in sums) or 1.0)
        values = [num - ratio * den for num, den in sums]
    else:
        values = [num / den for num, den in sums]
    return _compare(*(Moments.from_arrays(value) for value in values))


def _of_unit_shares(frame: pl.DataFrame, arm: int) -> tuple[float, float] | None:
    """The label whose share within a unit differs most on average, Bonferroni over labels."""
    one_arm = pl.col("arm").n_unique().over("unit") == 1
    shares = frame.filter(one_arm).with_columns(share=pl.col("n") / pl.col("n").sum().over("unit"))
    units = [shares.filter(pl.col("arm") == code)["unit"].n_unique() for code in (0, arm)]
    square = pl.col("share") ** 2
    by_label = shares.group_by("arm", "level").agg(pl.col("share").sum(), square.sum().alias("square"))
    sums = {(row["arm"], row["level"]): (row["share"], row["square"]) for row in by_label.iter_rows(named=True)}
    labels = sorted({level for code, level in sums if code in (0, arm)})
    if len(labels) < 2 or min(units) < 2:
        return None
    found = []
    for level in labels:
        one = _compare(
            *(
                Moments.from_sums(n, 0.0, *sums.get((code, level), (0.0, 0.0)))
                for code, n in zip((0, arm), units, strict=True)
            )
        )
        if one is not None:
            found.append((one[0], min(1.0, len(labels) * one[1])))
    return min(found, key=lambda one: (one[1], -abs(one[0])), default=None)


def _compare(control: Moments, treated: Moments) -> tuple[float, float] | None:
    """Standardized difference of two means over units, and Welch's p-value."""
    if min(control.n, treated.n) < 2:
        return None
    difference = treated.mean_num - control.mean_num
    spread = math.sqrt((control.var_num + treated.var_num) / 2)
    try:
        return difference / spread, difference_in_means(control, treated).p_value
    except (EstimationError, ZeroDivisionError):
        # One value in each arm: alike, or told apart entirely.
        same = abs(difference) <= 1e-12 * max(abs(control.mean_num), abs(treated.mean_num))
        return None if same else (math.copysign(1.0, difference), separation_p(control.n, treated.n))


def _chi_square(control: np.ndarray, treated: np.ndarray) -> tuple[float, float]:
    """Pearson's test of levels against arms where rows are independent; the difference is Cramér's V."""
    from scipy.special import chdtrc

    table = np.vstack([control, treated])
    table = table[:, table.sum(axis=0) > 0]
    expected = np.outer(table.sum(axis=1), table.sum(axis=0)) / table.sum()
    statistic = float(((table - expected) ** 2 / expected).sum())
    return math.sqrt(statistic / table.sum()), float(chdtrc(table.shape[1] - 1, statistic))


def _by_level(
    control: np.ndarray,
    control_total: np.ndarray,
    treated: np.ndarray,
    treated_total: np.ndarray,
    separated: float,
) -> tuple[float, float] | None:
    """The level whose share differs most, Bonferroni over levels; shares vary by independent group.

    ``separated`` is the p-value of a level that holds all of one arm's rows and none of the other's.
    """
    best: tuple[float, float] | None = None
    for mine, theirs in zip(control, treated, strict=True):
        share, other = mine.sum() / control_total.sum(), theirs.sum() / treated_total.sum()
        if share == other and share in (0.0, 1.0):
            continue
        pooled = (mine.sum() + theirs.sum()) / (control_total.sum() + treated_total.sum())
        try:
            p = difference_in_means(
                Moments.from_arrays(mine, control_total), Moments.from_arrays(theirs, treated_total)
            ).p_value
        except EstimationError:
            if {share, other} != {0.0, 1.0}:
                continue
            p = separated
        size = float((other - share) / math.sqrt(pooled * (1 - pooled)))
        p = min(1.0, p * len(control))
        if best is None or p < best[1]:
            best = (size, p)
    return best
