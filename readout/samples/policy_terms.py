"""Metrics of an off-policy evaluation as its passes sum them."""

from __future__ import annotations

from dataclasses import replace

import polars as pl

from readout.terms import Term


def seen(term: Term) -> pl.Expr:
    """Whether a row has a value of it."""
    found = term.num.is_not_null()
    return found if term.den is None else found & term.den.is_not_null()


def lost(term: Term) -> pl.Expr:
    """Whether a row should have a value of it and has none; terms of readout's own are about every row."""
    return ~seen(term) if term.missing is None else term.missing.fill_null(False)


def of_those_seen(term: Term) -> Term:
    """A term that is null on some rows, as a ratio over the rows that have a value.

    Whether there is a value may be the action's doing (no first token of a request that failed), so how many have one
    is another number under the target: the mean over those is a ratio of two values. A row without one adds nothing
    to either. Rows that the metric is not about stay null.
    """
    none = lost(term)
    den = pl.lit(1.0) if term.den is None else term.den
    return replace(
        term,
        num=pl.when(none).then(pl.lit(0.0)).otherwise(term.num),
        den=pl.when(none).then(pl.lit(0.0)).otherwise(den),
        missing=None,
    )


def in_several(units: pl.Series) -> int:
    """Units that stand there more than once."""
    return units.filter(units.is_duplicated()).n_unique()
