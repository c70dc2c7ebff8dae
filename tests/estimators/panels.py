"""Panels for the tests of difference in differences: two public ones, and one whose truth is known."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from estimators.panel import Panel

DATA = Path(__file__).parent / "data"


def public(name: str, covariates: Sequence[str] = ()) -> Panel:
    """``mpdta`` (log employment of 500 counties, 2003-2007) or ``ehec`` (insured share of 46 states, 2008-2019)."""
    with (DATA / f"{name}.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    years = [int(c) for c in rows[0] if c.isdigit()]
    return Panel.from_rows(
        np.repeat([int(r["unit"]) for r in rows], len(years)),
        np.tile(years, len(rows)),
        np.array([[float(r[str(t)]) for t in years] for r in rows]).ravel(),
        np.repeat([float(r["first"]) or np.nan for r in rows], len(years)),
        covariates=np.repeat([[float(r[c]) for c in covariates] for r in rows], len(years), axis=0)
        if covariates
        else None,
    )


def staggered(
    seed: int, *, n: int = 200, periods: int = 6, slope: float = 0.0, noise: float = 1.0
) -> tuple[Panel, dict[str, float]]:
    """Two cohorts and units never treated, effects that grow with time and differ by cohort.

    ``slope`` adds a trend per period to the treated: parallel trends fail. Returns the panel and the true averages
    in the population, where either cohort holds a quarter of the units.
    """
    rng = np.random.default_rng(seed)
    first = rng.choice([2, 4, periods], size=n, p=[0.25, 0.25, 0.5])
    time = np.arange(periods)
    since = time - first[:, None]
    effect = np.where(since >= 0, (1.0 + (first == 2)[:, None]) * (1.0 + 0.5 * since), 0.0)
    y = (
        rng.normal(size=(n, 1)) * 2
        + 0.3 * time
        + 0.5 * (first < periods)[:, None]
        + noise * rng.normal(size=(n, periods))
    )
    y = y + effect + slope * time * (first < periods)[:, None]
    units = {2: 0.25, 4: 0.25}
    true = {g: [(1.0 + (g == 2)) * (1.0 + 0.5 * e) for e in range(periods - g)] for g in units}
    total = sum(units.values())
    cells = [(g, e, v) for g, values in true.items() for e, v in enumerate(values)]

    def mean(chosen: list[tuple[int, int, float]]) -> float:
        weight = np.array([units[g] for g, _, _ in chosen])
        return float(weight @ [v for _, _, v in chosen] / weight.sum())

    return Panel(y, first), {
        "simple": mean(cells),
        "dynamic": float(np.mean([mean([c for c in cells if c[1] == e]) for e in range(periods - 2)])),
        "group": sum(units[g] / total * float(np.mean(values)) for g, values in true.items()),
        "calendar": float(np.mean([mean([c for c in cells if c[0] + c[1] == t]) for t in range(2, periods)])),
    }
