"""What each independent observation adds to an effect: from it, how far the effects of two levels move together.

One entry an independent observation of the sample, the same ones whatever the term; 0 for those without a value of it.
Only correlations are taken from them: standard errors stay those of the method. Where the method has no such
contributions of its own (randomization inference, lagged errors, robust means), those of least squares on the same sums
stand for them. Horvitz-Thompson's estimates move together with the outcome's level, which those do not tell.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from estimators.cells import prepare
from estimators.cluster_regression import regression
from estimators.inference import EstimationError
from estimators.ols import fit
from estimators.segments import Matrix, Vector
from readout.samples.base import Sample
from readout.samples.blocks import Blocks
from readout.samples.clusters import Clusters
from readout.samples.rows import RowArms
from readout.samples.units import Units
from readout.terms import Term


def contributions(sample: Sample, terms: Sequence[Term], arm: int) -> Matrix | None:
    """``(n, len(terms))`` contributions to the effects of an arm; None where no observation counts in two of them.

    Args:
        sample: One of units, rows, clusters or blocks.
        terms: One for each level of a segment; no row has a value in two of them.
        arm: Code of the treatment.

    Raises:
        EstimationError: The data cannot carry one of the effects.
    """
    if isinstance(sample, RowArms) and not sample.grouped:
        return None
    return np.column_stack([_of(sample, term, arm) for term in terms])


def _of(sample: Sample, term: Term, arm: int) -> Vector:
    if isinstance(sample, RowArms | Units):
        return sample.contributions(term, arm)
    if isinstance(sample, Clusters):
        return _of_clusters(sample, term, arm)
    assert isinstance(sample, Blocks)
    return _of_blocks(sample, term, arm)


def _of_clusters(sample: Clusters, term: Term, arm: int) -> Vector:
    """By cluster, or by pair."""
    given, places, n = sample.placed_sums(term, arm)
    model = regression(given, sample.weights)
    score = np.where(model.remainder > 0.0, model.x * model.residuals, 0.0) / model.curvature
    score = score / np.sqrt(np.where(model.remainder > 0.0, model.remainder, 1.0))
    kept = places[model.data.kept]
    found = np.zeros(n)
    if model.starts is None:
        found[np.unique(kept)] = score  # pairs stand in the order of their labels
    else:
        found[kept[model.order]] = score
    return found


def _of_blocks(sample: Blocks, term: Term, arm: int) -> Vector:
    """By cell, or by block where all clusters switch together."""
    if sample.method == "horvitz_thompson":
        raise EstimationError("horvitz_thompson's errors are those of a level alone: levels are not compared under it")
    cells = sample.cells(term, arm)
    model = prepare(cells, sample.weights, sample.clustered_by)
    y = model.cells.num / model.cells.den
    fitted = fit(model.x, y - np.average(y, weights=model.weight), model.weight, model.groups)
    score = fitted.scores(model.effect)[:, 0]
    units = sample.units
    mine = units[sample.with_value(term, arm)][cells.den > 0.0]
    found = np.zeros(int(units.max()) + 1)
    found[mine] = score[fitted.groups]
    return found
