"""Randomization inference: the assignment mechanism is drawn anew, and the observed effect is held against the draws.

Under the sharp null of a constant additive effect every outcome under every assignment is known, so that the p-value
is exact at any number of clusters and for any outcome. The statistic is studentized by CR2, which makes the test valid
in large samples for the average effect too where effects differ between clusters.

Sources: Fisher (1935); Imbens and Rubin (2015), *Causal Inference*, ch. 5; Wu and Ding (2021), *Randomization tests for
weak null hypotheses in randomized experiments*; Phipson and Smyth (2010) for ``(1 + exceedances) / (1 + draws)``.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import ArrayLike

from estimators.cluster_means import Clusters, Codes, pair_positions
from estimators.cluster_regression import ClusterRegression, centred_arm, regression
from estimators.cluster_robust import Draws, all_patterns, replicate, resampled, summary
from estimators.estimate import Estimate
from estimators.inference import EstimationError
from estimators.ols import Matrix, Vector

MECHANISMS = ("complete", "stratified", "paired", "bernoulli")


@dataclass(frozen=True, slots=True, eq=False)
class Assignments:
    """Assignments that the mechanism could have made.

    Attributes:
        arms: ``(B, n)`` 0 and 1, columns in the order of the clusters.
        exact: All there are, the observed one among them; otherwise independent draws.
        weight: ``(B,)`` their probabilities up to a constant, where ``exact``; None: alike.
        mechanism: Its name.
    """

    arms: Draws
    exact: bool
    weight: Vector | None = None
    mechanism: str = "given"


def redraw(
    clusters: Clusters,
    *,
    mechanism: str | None = None,
    draws: int = 9999,
    seed: int = 0,
    probability: ArrayLike = 0.5,
) -> Assignments:
    """Draws the assignment anew; takes every possible one instead where there are no more than ``draws`` of them.

    Args:
        clusters: Their arms give the counts that the mechanism keeps.
        mechanism: ``complete``: as many clusters in either arm as observed; ``stratified``: so within every stratum;
            ``paired``: a coin in every pair; ``bernoulli``: a coin for every cluster. None: ``paired`` where there are
            pairs, else ``stratified`` where there are strata, else ``complete``.
        draws, seed: Number and seed of the draws.
        probability: Of treatment, one or by cluster; ``bernoulli`` only.

    Raises:
        EstimationError: A mechanism without its pairs or strata, incomplete pairs, or a probability outside (0, 1).
    """
    if mechanism is None:
        unpaired = "complete" if clusters.strata is None else "stratified"
        mechanism = unpaired if clusters.pairs is None else "paired"
    if mechanism not in MECHANISMS:
        raise ValueError(f"mechanism must be one of {MECHANISMS}")
    if draws < 1:
        raise ValueError("draws must be at least 1")
    rng = np.random.default_rng(seed)
    if mechanism == "paired":
        return _paired(clusters, draws, rng)
    if mechanism == "bernoulli":
        return _bernoulli(len(clusters.arm), probability, draws, rng)
    strata = np.zeros(len(clusters.arm), np.intp)
    if mechanism == "stratified":
        if clusters.strata is None:
            raise EstimationError("a stratified assignment needs the clusters' strata")
        strata = np.unique(clusters.strata, return_inverse=True)[1]
    return _permuted(clusters.arm, strata, draws, rng, mechanism)


def randomization_inference(
    clusters: Clusters,
    *,
    alpha: float = 0.05,
    mechanism: str | None = None,
    weights: str = "rows",
    draws: int = 9999,
    seed: int = 0,
    probability: ArrayLike = 0.5,
    assignments: Assignments | None = None,
) -> Estimate:
    """The effect of ``cluster_robust`` with the p-value and interval of the assignment mechanism.

    Args:
        clusters: One entry per randomized unit; strata or pairs enter the estimate as in ``cluster_robust``.
        alpha: Level; the interval holds the constant additive effects that the test does not reject.
        mechanism, draws, seed, probability: As in ``redraw``.
        weights: ``rows``: clusters weigh their denominators; ``units``: alike. An additive effect is one per row, or
            per unit of the denominator, and per cluster mean.
        assignments: Instead of drawing: assignments in the order of the clusters, such as a schedule drawn by its own
            program.

    Returns:
        The estimate in the outcome's unit with CR2's standard error and degrees of freedom, p-value ``(1 + exceedances)
        / (1 + draws)`` or the exact share, and the interval by inversion; the relative effect's interval reaches as
        many standard errors on the log ratio. ``diagnostics``: as in ``cluster_robust``, with ``mechanism``,
        ``draws`` (those whose statistic exists), ``exact`` and ``seed``.

    Clusters without rows are left out, and the arms of the others are drawn at their own counts.

    Raises:
        EstimationError: As ``cluster_robust`` and ``redraw``; too few assignments for an interval at ``alpha``.
    """
    model = regression(clusters, weights)
    if assignments is None:
        assignments = redraw(
            model.data.clusters,
            mechanism=mechanism,
            draws=draws,
            seed=seed,
            probability=_of(probability, model.data.kept, len(clusters.arm)),
        )
        arms = assignments.arms
    else:
        arms = _given(assignments, clusters)[:, model.data.kept]
    if clusters.pairs is not None and assignments.mechanism in ("complete", "stratified", "bernoulli"):
        raise EstimationError("matched pairs are assigned within pairs; leave the pairs out for another mechanism")
    estimate = summary(model, "randomization_inference", "CR2", alpha)
    outcome = _flipped if clusters.pairs is not None else _rearranged
    columns = _signs(model, arms) if clusters.pairs is not None else arms[:, model.order]
    replicates = replicate(
        model, columns, partial(outcome, model), leverage=True, exact=assignments.exact, weight=assignments.weight
    )
    notes = {"mechanism": assignments.mechanism, "draws": len(replicates.q), "exact": assignments.exact, "seed": seed}
    return resampled(model, estimate, "CR2", replicates, alpha, notes)


def _rearranged(model: ClusterRegression, arms: Draws) -> tuple[Matrix, Matrix, Matrix]:
    """Arms drawn anew over the outcomes that all clusters would have without the effect."""
    assert model.starts is not None
    slope = model.w * model.data.clusters.arm[model.order]
    x = centred_arm(arms.astype(np.float64), model.w, model.starts)
    return x, np.broadcast_to(model.s - model.effect * slope, x.shape), np.broadcast_to(slope, x.shape)


def _flipped(model: ClusterRegression, signs: Draws) -> tuple[Matrix, Matrix, Matrix]:
    """Differences of pairs, their sign changed where the arms change places."""
    return np.broadcast_to(model.x, signs.shape), signs * model.residuals, signs * model.w


def _signs(model: ClusterRegression, arms: Draws) -> Draws:
    """``(B, n_pairs)``: 1 where the pair is as observed, -1 where its arms change places."""
    control, treatment = pair_positions(model.data.clusters)
    if (arms[:, control] == arms[:, treatment]).any():
        raise EstimationError("an assignment puts both clusters of a pair in one arm")
    return arms[:, treatment] - arms[:, control]


def _of(probability: ArrayLike, kept: Codes, n: int) -> Vector:
    """The kept clusters' probabilities."""
    return np.asarray(np.broadcast_to(np.asarray(probability, dtype=np.float64), n)[kept], dtype=np.float64)


def _given(assignments: Assignments, clusters: Clusters) -> Draws:
    arms = np.asarray(assignments.arms)
    if arms.ndim != 2 or len(arms) == 0 or arms.shape[1] != len(clusters.arm):
        raise EstimationError("assignments must have one row per draw and one column per cluster")
    if not np.isin(arms, (0, 1)).all():
        raise EstimationError("arms of assignments must be 0 (control) or 1 (treatment)")
    return arms.astype(np.int8)


def _paired(clusters: Clusters, draws: int, rng: np.random.Generator) -> Assignments:
    if clusters.pairs is None:
        raise EstimationError("a paired assignment needs the clusters' pairs")
    names, codes, sizes = np.unique(clusters.pairs, return_inverse=True, return_counts=True)
    if (sizes != 2).any() or (np.bincount(codes, weights=clusters.arm) != 1.0).any():
        raise EstimationError("every pair must have one cluster in either arm")
    exact = 2 ** len(names) <= draws
    flips = all_patterns(2, len(names)) if exact else rng.integers(0, 2, (draws, len(names)), dtype=np.int8)
    return Assignments(clusters.arm.astype(np.int8) ^ flips[:, codes], exact, mechanism="paired")


def _bernoulli(n: int, probability: ArrayLike, draws: int, rng: np.random.Generator) -> Assignments:
    p = np.broadcast_to(np.asarray(probability, dtype=np.float64), n)
    if not ((p > 0.0) & (p < 1.0)).all():
        raise EstimationError("probabilities of treatment must lie between 0 and 1")
    if 2**n > draws:
        return Assignments((rng.random((draws, n)) < p).astype(np.int8), False, mechanism="bernoulli")
    arms = all_patterns(2, n)
    logs = np.where(arms == 1, np.log(p), np.log1p(-p)).sum(axis=1)
    return Assignments(arms, True, np.exp(logs - logs.max()), "bernoulli")


def _permuted(arm: Codes, strata: Codes, draws: int, rng: np.random.Generator, mechanism: str) -> Assignments:
    """Arms exchanged within strata."""
    members = [np.flatnonzero(strata == s) for s in np.unique(strata)]
    counts = [int(arm[m].sum()) for m in members]
    exact = math.prod(math.comb(len(m), k) for m, k in zip(members, counts, strict=True)) <= draws
    if exact:
        arms = np.array(list(_combinations(members, counts, len(arm))), dtype=np.int8)
    else:
        arms = np.tile(arm.astype(np.int8), (draws, 1))
        for m in members:
            arms[:, m] = rng.permuted(arms[:, m], axis=1)
    return Assignments(arms, exact, mechanism=mechanism)


def _combinations(members: list[Codes], counts: list[int], n: int) -> Iterator[Draws]:
    choices = (itertools.combinations(m.tolist(), k) for m, k in zip(members, counts, strict=True))
    for chosen in itertools.product(*choices):
        arms = np.zeros(n, np.int8)
        arms[list(itertools.chain.from_iterable(chosen))] = 1
        yield arms
