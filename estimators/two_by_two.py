"""Difference in differences of units that all start treatment together, before against after.

Estimand: the average effect on the treated over the periods after the start. Identified where, without treatment, the
treated would have changed as the untreated did. Periods before and after are averaged by unit first, so that errors
that last over periods do not count as many: Bertrand, Duflo and Mullainathan (2004), *How much should we trust
differences-in-differences estimates?*, section IV.C. On a panel without gaps the point is that of the regression on
unit and period effects.
"""

from __future__ import annotations

import warnings

import numpy as np

from estimators.estimate import Estimate
from estimators.event_effects import beyond_rounding, relative_to_untreated
from estimators.inference import EstimationError, finish
from estimators.ols import fit
from estimators.panel import Panel, Vector, group_sums


def two_by_two(panel: Panel, *, alpha: float = 0.05) -> Estimate:
    """Mean change of the treated minus mean change of the untreated.

    Args:
        panel: Units over periods, all of one start or never treated. Covariates, where there are any, shift the
            untreated change linearly and alike for all.
        alpha: Level; the interval is at ``1 - alpha``.

    Returns:
        The effect in the outcome's unit; errors are CR2 with Satterthwaite degrees of freedom, clustered as
        ``Panel.error_groups`` says; where units are the clusters, the error is Welch's. ``treatment_value`` is the
        treated units' mean after the start, ``control_value`` what they would have had. ``diagnostics``:
        ``clustered_by``, ``n_clusters``, ``unseen`` (units not seen both before and after), and the panel's counts.

    Raises:
        EstimationError: Several starts, fewer than two units or clusters on a side, collinear covariates, or nothing
            varies.
    """
    panel = panel.comparable()
    if len(panel.groups) > 1:
        raise EstimationError(
            "units start treatment in several periods; two_by_two takes one start, callaway_santanna takes several"
        )
    if not (panel.first == panel.y.shape[1]).any():
        raise EstimationError("no unit stays untreated, so nothing is left to compare with")
    start = panel.groups[0]
    before, after = _mean(panel.y[:, :start]), _mean(panel.y[:, start:])
    seen = np.isfinite(before) & np.isfinite(after)
    used = panel.take(seen)
    treated = used.first == start
    before, after = before[seen], after[seen]
    for side, name in ((treated, "treated"), (~treated, "untreated")):
        if (n := int(side.sum())) < 2:
            raise EstimationError(f"{n} {name} unit{'s' * (n != 1)} seen before and after; an error needs at least two")
    codes, clustered_by = used.error_groups()
    x = np.column_stack([np.ones(len(after)), treated])
    if used.covariates is not None:
        x = np.column_stack([x, used.covariates - used.covariates.mean(axis=0)])
    model = fit(x, after - before, groups=codes)
    contrast = np.zeros(x.shape[1])
    contrast[1] = 1.0
    estimate, std_error, df = model.contrast(contrast)
    level = float(after[treated].mean())
    own = np.where(treated, (after - level) / treated.sum(), 0.0)
    scores = model.scores(contrast)[:, 0]
    return finish(
        "two_by_two",
        estimate=estimate,
        std_error=beyond_rounding(std_error, used.y),
        df=df,
        alpha=alpha,
        control_value=level - estimate,
        treatment_value=level,
        n_control=int((~treated).sum()),
        n_treatment=int(treated.sum()),
        relative=relative_to_untreated(level, estimate, group_sums(own[:, None], codes)[:, 0], scores, df, alpha),
        diagnostics={
            "clustered_by": clustered_by,
            "n_clusters": int(codes.max()) + 1,
            "unseen": int((~seen).sum()),
            **panel.counts(),
        },
    )


def _mean(y: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> Vector:
    """Means of rows over what was seen; NaN where nothing was."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.asarray(np.nanmean(y, axis=1), dtype=np.float64)
