"""What metrics are adjusted for: facts of a unit from before the experiment, repeated on its rows.

A covariate's value for a unit is its mean over the unit's rows that have one; where rows are randomized, it is the
row's own. Text becomes one value for each of its levels: the share of the unit's rows at that level. With a pre-period
a metric is its own covariate, read on the unit's rows there: a mean of rows as a mean, a sum within units as a sum, a
ratio as both of its sums.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import polars as pl

from readout.checks import balance
from readout.errors import LogError, SpecError
from readout.logs import Logs
from readout.logs.values import label
from readout.reduce import pilot
from readout.spec.model import Spec
from readout.spec.problems import KeyPath
from readout.terms import COVARIATE, LEVEL, Term, before_term, eligible_only
from readout.text import visible

# Further levels of a text column are one level together.
MOST_LEVELS = 20
OTHER = "another level"
TEXT = (pl.String, pl.Categorical, pl.Enum)


def with_covariates(spec: Spec, logs: Logs, metrics: list[Term]) -> list[Term]:
    """The metrics, each with what it is adjusted for; quantiles stay as they are.

    Raises:
        LogError: A covariate that the log does not have or that cannot be adjusted for.
        SpecError: cuped or regression_adjusted without any covariate.
    """
    method = spec.estimator.method
    if method == "cuped":
        found = [t if t.quantile is not None else replace(t, covariates=_of_metric(spec, logs, t)) for t in metrics]
        if not any(t.covariates for t in found):
            message = "cuped needs a covariate, and no metric that it can adjust has one"
            hint = "name one (metrics.NAME.covariate: COLUMN), or say design.pre_period: metrics as they were before"
            raise SpecError([spec.source.problem(("estimator", "method"), message, hint)])
        return found
    if method == "regression_adjusted":
        shared = tuple(_of_columns(spec, logs))
        return [
            t if t.quantile is not None else replace(t, covariates=shared + _own_before(spec, logs, t)) for t in metrics
        ]
    return metrics


def own_terms(metrics: Iterable[Term]) -> list[Term]:
    """Every covariate of the metrics, once."""
    return list({c.name: c for t in metrics for c in t.covariates}.values())


def _of_metric(spec: Spec, logs: Logs, term: Term) -> tuple[Term, ...]:
    given = spec.metrics[term.name].covariate
    if given is None:
        return _own_before(spec, logs, term)
    before = logs.before is not None
    mask = (lambda expr: expr) if before else eligible_only(spec, logs)
    named = zip(given.columns, ("numerator", "denominator"), strict=False)
    at: KeyPath = ("metrics", term.name, "covariate")
    return tuple(Term(COVARIATE + c, mask(logs.expressions.number(c, (*at, key))), before=before) for c, key in named)


def _own_before(spec: Spec, logs: Logs, term: Term) -> tuple[Term, ...]:
    """The metric itself in the pre-period; nothing where there is none."""
    return () if logs.before is None else (before_term(spec.metrics[term.name], spec, logs),)


def _of_columns(spec: Spec, logs: Logs) -> Iterable[Term]:
    """``design.adjust``, else the features: numbers as they are, text by level."""
    adjust = tuple(getattr(spec.design, "adjust", ()))
    features = tuple(logs.columns.get("features", ()))
    names = dict.fromkeys(adjust or features)
    at: KeyPath = ("design", "adjust") if adjust else ("logs", "columns", "features")
    if not names and logs.before is not None:
        return []
    if not names:
        message = "regression_adjusted needs covariates, and the spec names none"
        hint = "name them under logs.columns.features or design.adjust"
        raise SpecError([spec.source.problem(("estimator", "method"), message, hint)])
    known = {t.name: t for t in balance.terms(spec, logs)}
    mask = eligible_only(spec, logs)
    problems = []
    text = []
    found: dict[str, list[Term]] = {}
    for i, name in enumerate(names):
        if name not in logs.source.schema:
            problems.append(logs.expressions.missing(name, (*at, i)))
            continue
        dtype = logs.dtype(name)
        if dtype.is_numeric() or dtype == pl.Boolean:
            value = mask(logs.expressions.number(name, (*at, i)))
            found[name] = [known.get(balance.FEATURE + name, Term(balance.FEATURE + name, value))]
        elif dtype in TEXT:
            text.append(name)
        else:
            message = f"column {visible(name)!r} is {dtype}; regression_adjusted takes numbers, true/false or text"
            hint = "name the columns to adjust for in design.adjust"
            problems.append(spec.source.problem((*at, i), message, hint))
    if problems:
        raise LogError(problems)
    found |= _of_text(spec, logs, text)
    return [term for name in names for term in found[name]]


def _of_text(spec: Spec, logs: Logs, names: list[str]) -> dict[str, list[Term]]:
    """One term for each level of a column that the pilot saw, but for the most frequent; the rest together."""
    if not names:
        return {}
    mask = eligible_only(spec, logs)
    labels = {name: label(pl.col(name), logs.dtype(name)) for name in names}
    counts = [expr.drop_nulls().value_counts(name="n").implode().alias(name) for name, expr in labels.items()]
    seen = pilot(logs.frame, counts, logs.source.rows)
    found = {}
    for name, level in labels.items():
        values = seen.select(pl.col(name).explode()).unnest(name).drop_nulls()
        by_count = values.group_by(values.columns[0]).agg(pl.col("n").sum()).rows()
        most = [text for text, _ in sorted(by_count, key=lambda row: (-row[1], row[0]))][:MOST_LEVELS]
        terms = [Term(f"{LEVEL}{name} = {one}", mask((level == one).cast(pl.Int8))) for one in most[1:]]
        # Of a single level there is only whether a row has another.
        rest = f"{LEVEL}{name} = {OTHER}" if terms else balance.FEATURE + name
        found[name] = [*terms, Term(rest, mask((~level.is_in(most)).cast(pl.Int8)))]
    return found
