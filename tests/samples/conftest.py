"""Gather the evidence of a small log and spec, and independent computations to hold it against."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import polars as pl
import pytest

from readout import pipeline, spec
from readout.evidence import Evidence

Gather = Callable[..., Evidence]


@pytest.fixture
def gather(world: Any) -> Gather:
    """The evidence of a frame under a spec of two or more arms and the given metrics."""

    def of(frame: pl.DataFrame, metrics: Mapping[str, Mapping[str, Any]], **changes: Any) -> Evidence:
        given = {name: {"better": "lower", **keys} for name, keys in metrics.items()}
        first = next(iter(given))
        given[first] = {**given[first], "role": "primary"}
        dotted = {key.replace("__", "."): value for key, value in changes.items()}
        path = world.write(frame, {"metrics": given, **dotted})
        from datetime import UTC, datetime

        return pipeline.gather(spec.load(path), datetime(2026, 11, 20, tzinfo=UTC))

    return of


def welch(x0: np.ndarray, x1: np.ndarray) -> dict[str, float]:
    """Welch's test by scipy."""
    from scipy import stats

    found = stats.ttest_ind(x1, x0, equal_var=False)
    low, high = found.confidence_interval()
    return {
        "estimate": x1.mean() - x0.mean(),
        "std_error": float(np.sqrt(x0.var(ddof=1) / len(x0) + x1.var(ddof=1) / len(x1))),
        "df": float(found.df),
        "p_value": float(found.pvalue),
        "ci_low": float(low),
        "ci_high": float(high),
        "n_control": len(x0),
        "n_treatment": len(x1),
    }


def ratio(arms: list[tuple[np.ndarray, np.ndarray]]) -> dict[str, float]:
    """Difference of two ratios of sums by the delta method, from one entry a unit."""
    values, variances = [], []
    for num, den in arms:
        num, den = np.asarray(num, np.longdouble), np.asarray(den, np.longdouble)
        r = num.sum() / den.sum()
        residual = num - r * den
        residual = residual - residual.mean()
        values.append(r)
        variances.append((residual**2).sum() / (len(num) - 1) / len(num) / den.mean() ** 2)
    total = sum(variances)
    df = total**2 / sum(v**2 / (len(n) - 1) for v, (n, _) in zip(variances, arms, strict=True))
    return {
        "estimate": float(values[1] - values[0]),
        "std_error": float(np.sqrt(total)),
        "df": float(df),
        "control_value": float(values[0]),
        "treatment_value": float(values[1]),
        "n_control": len(arms[0][0]),
        "n_treatment": len(arms[1][0]),
    }


def agrees(found: Any, wanted: Mapping[str, float], rel: float = 1e-9) -> None:
    assert found is not None
    scale = abs(wanted["std_error"])
    for name, value in wanted.items():
        assert getattr(found, name) == pytest.approx(value, rel=rel, abs=rel * scale), name


@pytest.fixture
def oracle() -> Any:
    from types import SimpleNamespace

    return SimpleNamespace(welch=welch, ratio=ratio, agrees=agrees)
