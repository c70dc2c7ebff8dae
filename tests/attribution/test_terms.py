"""Every term's closed form against all coalitions of its game, and the axioms that define a Shapley value."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attribution.batches import Batches, resolve
from attribution.game import Game
from attribution.stays import Stays
from attribution.terms import (
    Fixed,
    Hinge,
    Maximum,
    Own,
    Padded,
    Prefix,
    Span,
    Square,
    StepHinge,
    Steps,
    StepTable,
    TooDear,
)  # fmt: skip

from .games import TERMS, coalitions, enumerated, random_log, random_stays

FEW = settings(deadline=None, max_examples=40, derandomize=True)
KINDS = ("static", "continuous", "sparse", "ties")
names = st.sampled_from(sorted(TERMS))
logs = st.tuples(st.integers(1, 9), st.integers(0, 10_000), st.sampled_from(KINDS))


@pytest.mark.parametrize("name", sorted(TERMS))
@pytest.mark.parametrize("n", [1, 2, 3, 5, 8, 12])
def test_parity_with_all_coalitions(name: str, n: int) -> None:
    term = TERMS[name]
    for seed, kind in enumerate(KINDS):
        stays = random_stays(n, seed, kind)
        worth = term.worth(stays, coalitions(n))
        total = term.totals(stays)[0]
        assert worth[0] == 0
        assert total == pytest.approx(worth[-1], rel=1e-13, abs=0)
        np.testing.assert_allclose(term.shares(stays), enumerated(worth, n), rtol=1e-12, atol=1e-15 * total)
        without = worth[-1] - worth[(2**n - 1) ^ (1 << np.arange(n))]
        np.testing.assert_allclose(term.marginals(stays), without, rtol=1e-9, atol=1e-13 * total)


@given(st.dictionaries(names, st.floats(0, 3), min_size=1), logs)
@FEW
def test_random_sums_of_terms_have_parity_and_add_up(weights: dict[str, float], log: tuple[int, int, str]) -> None:
    n, seed, kind = log
    stays = random_stays(n, seed, kind)
    game = Game({name: Game({str(k): TERMS[name] for k in range(math.ceil(w))}) for name, w in weights.items()})
    worth = game.worth(stays, coalitions(n))
    shares, total = game.shares(stays), game.totals(stays)[0]
    np.testing.assert_allclose(shares, enumerated(worth, n), rtol=1e-12, atol=1e-14 * total)
    assert shares.sum() == pytest.approx(total, rel=1e-12, abs=1e-300)
    parts = game.components(stays)
    np.testing.assert_allclose(sum(parts.values()), shares, rtol=1e-12, atol=1e-14 * total)


@given(names, logs)
@FEW
def test_twins_share_alike_and_a_dummy_pays_nothing(name: str, log: tuple[int, int, str]) -> None:
    stays = random_stays(*log)
    term = TERMS[name]
    mine = term.shares(doubled(stays))
    np.testing.assert_allclose(mine[0], mine[-1], rtol=1e-13)
    if name in ("fixed", "padded", "span"):
        return  # there whoever is there: nobody is a dummy
    idle = term.shares(with_dummy(stays))
    assert idle[-1] == 0
    np.testing.assert_allclose(idle[:-1], term.shares(stays), rtol=1e-12, atol=1e-14 * term.totals(stays)[0])


@given(names, st.lists(logs, min_size=1, max_size=4), st.randoms(use_true_random=False))
@FEW
def test_neither_other_batches_nor_the_order_of_rows_matter(
    name: str, batches: list[tuple[int, int, str]], random: object
) -> None:
    parts = [random_stays(n, seed | 1, kind) for n, seed, kind in batches]  # an odd seed: a prefix column
    alone = np.concatenate([TERMS[name].shares(part) for part in parts])
    joined = [random_log(n, seed | 1, kind) for n, seed, kind in batches]
    order = list(range(alone.size))
    random.shuffle(order)  # type: ignore[attr-defined]
    columns = {
        name: np.concatenate([np.asarray(getattr(log, name)) for log in joined])[order]
        for name in ("prompt_tokens", "output_tokens", "start_step", "end_step", "prefix", "prefix_tokens")
    }
    batch = np.repeat(np.arange(len(parts)), [part.batch.size for part in parts])[order]
    stays = resolve(Batches(batch, **columns))
    total = TERMS[name].totals(stays)[stays.batch]
    together = TERMS[name].shares(stays)
    assert np.all(np.abs(together - alone[order]) <= 1e-12 * np.abs(together) + 1e-14 * total)
    if "hinge" not in name:  # the others are the same to the bit in whatever order the rows stand
        sorted_rows = np.argsort(order)
        again = resolve(Batches(batch[sorted_rows], **{key: values[sorted_rows] for key, values in columns.items()}))
        np.testing.assert_array_equal(TERMS[name].shares(again), together[sorted_rows])
    for code in range(len(parts)):
        np.testing.assert_allclose(
            TERMS[name].worth(stays.only(code), np.ones((1, parts[code].batch.size), dtype=bool)),
            TERMS[name].totals(stays)[[code]],
            rtol=1e-12,
        )


def test_by_hand() -> None:
    stays = resolve(Batches([0, 0, 0], [10, 20, 30], [2, 4, 4], [0, 1, 9], [2, 5, 13]))
    np.testing.assert_allclose(Fixed(6.0).shares(stays), [2, 2, 2])
    np.testing.assert_allclose(Maximum(1.0, "output").shares(stays), [2 / 3, 2 / 3 + 1, 2 / 3 + 1])
    np.testing.assert_allclose(Maximum(1.0, "output").marginals(stays), [0, 0, 0])
    np.testing.assert_allclose(Square(1.0, "prompt").shares(stays), [600, 1200, 1800])
    np.testing.assert_allclose(Steps(1.0).shares(stays), [1.5, 3.5, 4])
    table = StepTable((1, 2), (1.0, 3.0))
    np.testing.assert_allclose(table.shares(stays), [1 + 1.5, 1.5 + 3, 4])
    np.testing.assert_allclose(table.marginals(stays), [1 + 2, 2 + 3, 4])
    # pauses count: 13 steps from 0 to 13; the first end is 2, the last start 9
    np.testing.assert_allclose(Span(1.0).shares(stays), [-7 / 3 + 4 + 1, -7 / 3 + 1.5 + 4, -7 / 3 + 1.5 + 8])
    np.testing.assert_allclose(Own(context_j=1.0).shares(stays), [10 + 11, 20 + 21 + 22 + 23, 30 + 31 + 32 + 33])
    # padded to the longest: 3 x 4
    np.testing.assert_allclose(Padded(1.0, "output").shares(stays).sum(), 12)
    # 60 prompt tokens, 15 of them beyond 45: by the orders of three
    np.testing.assert_allclose(Hinge(1.0, 45.0, "prompt").shares(stays), [10 / 3, 35 / 6, 35 / 6])


def test_output_that_comes_slower_than_a_token_a_step_is_read_less_often() -> None:
    stays = resolve(Batches([0, 0], [10, 10], [4, 4], [0, 0], [8, 0]))
    np.testing.assert_allclose(Own(context_j=1.0).shares(stays), [8 * 10 + 4 / 8 * 28, 0])
    np.testing.assert_allclose(Own(context_j=1.0).worth(stays, np.array([[True, True]])), [8 * 10 + 14])


def test_thousands_in_one_batch_step_by_step() -> None:
    rng = np.random.default_rng(9)
    n = 3000
    start = rng.integers(0, 2000, n)
    output = np.minimum(rng.geometric(0.005, n), 2000)
    batch = np.where(np.arange(n) < 2500, 0, 1 + np.arange(n) // 3)
    stays = resolve(Batches(batch, np.full(n, 7), output, start, start + output))
    table = StepTable((8, 100, 400), (91.0, 160.0, 320.0))
    active = np.zeros(5000, dtype=np.int64)
    for low, high in zip(start[:2500], start[:2500] + output[:2500], strict=True):
        active[low:high] += 1
    h = np.where(active < 100, 91 + (active - 8) * 0.75, 160 + (active - 100) * (160 / 300))
    paid = np.concatenate([[0], np.cumsum((np.where(active > 0, h, 0) / np.maximum(active, 1)).astype(np.longdouble))])
    expected = paid[start[:2500] + output[:2500]] - paid[start[:2500]]
    np.testing.assert_allclose(table.shares(stays)[:2500], expected.astype(float), rtol=1e-12)
    for term in (table, *TERMS.values()):
        if not isinstance(term, Hinge | StepHinge):
            totals = term.totals(stays)
            error = np.abs(np.bincount(stays.batch, term.shares(stays)) - totals)
            assert np.all(error <= 1e-12 * totals)


def test_shared_prefixes_by_hand() -> None:
    log = Batches([0] * 4, [10, 10, 10, 7], [1] * 4, prefix=["a", "a", "a", None], prefix_tokens=[4, 4, 6, 5])
    stays = resolve(log)
    np.testing.assert_allclose(Prefix(1.0).shares(stays), [4 / 3, 4 / 3, 4 / 3 + 2, 0])
    np.testing.assert_allclose(Prefix(1.0).marginals(stays), [0, 0, 2, 0])
    np.testing.assert_allclose(Own(prompt_j=1.0).shares(stays), [6, 6, 4, 7])
    np.testing.assert_allclose(Own(prompt_j2=1.0).shares(stays), [84, 84, 64, 49])
    assert resolve(Batches([0], [10], [1])).pieces is None
    assert Prefix(1.0).shares(resolve(Batches([0], [10], [1]))).tolist() == [0]


def test_blocks_count_the_tokens_that_mooncake_s_hashes_share() -> None:
    from attribution.pieces import Blocks

    # 512 tokens a block: both begin with block 0; the second prompt ends inside its third block
    blocks = Blocks(ids=np.array([0, 1, 0, 2, 3]), offsets=np.array([0, 2, 5]), tokens=512)
    stays = resolve(Batches([7, 7], [1024, 1100], [1, 1], blocks=blocks))
    np.testing.assert_allclose(Prefix(1.0).shares(stays), [256 + 512, 256 + 512 + 76])
    np.testing.assert_allclose(Prefix(1.0).totals(stays), [512 + 512 + 588])
    np.testing.assert_allclose(Own(prompt_j=1.0).shares(stays), [0, 0])
    apart = resolve(Batches([7, 8], [1024, 1100], [1, 1], blocks=blocks))
    np.testing.assert_allclose(Prefix(1.0).shares(apart), [1024, 1100])


@pytest.mark.parametrize(("size", "part"), [(16, 0.05), (16, 0.4), (17, 0.9), (26, 0.6)])
def test_a_hinge_of_a_large_batch_is_exact(size: int, part: float) -> None:
    rng = np.random.default_rng(size)
    amounts = rng.integers(0, 25, size)
    threshold = part * amounts.sum()
    stays = resolve(Batches(np.zeros(size), amounts, np.ones(size)))
    np.testing.assert_allclose(
        Hinge(1.0, threshold, "prompt").shares(stays), by_counting_subsets(amounts, threshold), rtol=1e-12
    )
    coarse = resolve(Batches(np.zeros(size), 512 * amounts, np.ones(size)))  # whole blocks of tokens cost no more
    np.testing.assert_allclose(
        Hinge(1.0, 512 * threshold, "prompt").shares(coarse), 512 * by_counting_subsets(amounts, threshold), rtol=1e-12
    )


def by_counting_subsets(amounts: np.ndarray, threshold: float) -> np.ndarray:
    """Shares of a hinge from the number of subsets of the others of every size and sum, in whole numbers."""
    n, total = len(amounts), int(amounts.sum())
    shares = []
    for i in range(n):
        count = [{0: 1}] + [{} for _ in range(n - 1)]
        for j, w in enumerate(amounts.tolist()):
            if j == i:
                continue
            for k in range(n - 2, -1, -1):
                for s, c in count[k].items():
                    count[k + 1][s + w] = count[k + 1].get(s + w, 0) + c
        assert max(max(c) for c in count if c) <= total
        w = int(amounts[i])
        shares.append(
            sum(
                c * (max(s + w - threshold, 0) - max(s - threshold, 0)) / (n * math.comb(n - 1, k))
                for k in range(n)
                for s, c in count[k].items()
            )
        )
    return np.array(shares)


def test_a_hinge_a_step_lays_out_its_intervals_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(5)
    start, output = rng.integers(0, 60, 60), rng.integers(0, 50, 60)
    stays = resolve(Batches(rng.integers(0, 9, 60), rng.integers(0, 900, 60), output, start, start + output))
    term = StepHinge(0.3, 1500.0, "prompt")
    at_once = term.shares(stays)
    monkeypatch.setattr("attribution.terms.hinge._PAIRS", 40)
    np.testing.assert_allclose(term.shares(stays), at_once, rtol=1e-14)
    np.testing.assert_allclose(np.bincount(stays.batch, at_once), term.totals(stays), rtol=1e-13)


def test_a_hinge_that_is_too_dear_says_so() -> None:
    stays = resolve(Batches(np.zeros(400), np.full(400, 99_991) - np.arange(400), np.ones(400)))
    with pytest.raises(TooDear, match=r"1 sets of requests, the dearest with 400 requests .* sample them") as dear:
        Hinge(1.0, 1e7, "prompt").shares(stays)
    assert dear.value.groups.tolist() == [0]
    with pytest.raises(TooDear) as dear:
        StepHinge(1.0, 1e7, "prompt").shares(replace(two_batches(stays), end=np.ones(800, dtype=np.int64)))
    assert dear.value.groups.tolist() == [0, 1]
    assert Hinge(1.0, 1e9, "prompt").shares(stays).sum() == 0  # never reached: free
    assert Hinge(1.0, 0.0, "prompt").shares(stays)[0] == 99_991


@pytest.mark.parametrize(
    ("counts", "joules", "words"),
    [
        ((8,), (1.0,), "at least two"),
        ((8, 8), (1.0, 2.0), "rise"),
        ((0, 8), (1.0, 2.0), "from 1 on"),
        ((1, 8), (-1.0, 2.0), "at least 0"),
        ((8, 16), (1.0, 20.0), "below 0 J before one request"),
        ((8, 16), (3.0, 2.0), "its last line falls"),
    ],
)
def test_tables_that_cannot_be_are_refused(counts: tuple[int, ...], joules: tuple[float, ...], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        StepTable(counts, joules)


def test_a_table_says_how_much_lies_beyond_it() -> None:
    stays = resolve(Batches([0, 0, 0], [0] * 3, [2, 4, 4], [0, 1, 9], [2, 5, 13]))
    assert StepTable((1, 2), (1.0, 3.0)).beyond(stays) == 0
    assert StepTable((2, 3), (2.0, 3.0)).beyond(stays) == pytest.approx(8 / 9)


def test_worth_wants_one_batch_and_masks_that_fit() -> None:
    two = resolve(Batches([0, 1], [1, 1], [1, 1]))
    with pytest.raises(ValueError, match="expected one batch, got 2"):
        Fixed(1.0).worth(two, np.ones((1, 2), dtype=bool))
    with pytest.raises(ValueError, match="expected coalitions of 1 requests"):
        Fixed(1.0).worth(two.only(0), np.ones((1, 2), dtype=bool))


def two_batches(stays: Stays) -> Stays:
    """The one batch twice."""
    grown = _taken(stays, np.tile(np.arange(stays.batch.size), 2))
    return replace(grown, batch=np.repeat([0, 1], stays.batch.size), n_batches=2)


def doubled(stays: Stays) -> Stays:
    """With the first request once more at the end."""
    take = np.append(np.arange(stays.batch.size), 0)
    return _taken(stays, take)


def with_dummy(stays: Stays) -> Stays:
    """With a request that has no tokens and no steps, at the first's start."""
    grown = doubled(stays)
    prompt, output, end = grown.prompt.copy(), grown.output.copy(), grown.end.copy()
    prompt[-1] = output[-1] = 0
    end[-1] = 0
    start = grown.start.copy()
    start[-1] = 0
    uses = grown.pieces
    if uses is not None:
        mine = uses.row < stays.batch.size
        uses = replace(
            uses, row=uses.row[mine], piece=uses.piece[mine], start=uses.start[mine], end=uses.end[mine]
        )  # fmt: skip
    return replace(grown, prompt=prompt, output=output, start=start, end=end, pieces=uses)


def _taken(stays: Stays, take: np.ndarray) -> Stays:
    uses = stays.pieces
    if uses is not None:
        picked = [np.flatnonzero(uses.row == row) for row in take.tolist()]
        index = np.concatenate(picked)
        row = np.repeat(np.arange(take.size), [p.size for p in picked])
        uses = replace(uses, row=row, piece=uses.piece[index], start=uses.start[index], end=uses.end[index])
    return replace(
        stays, rows=np.arange(take.size), batch=stays.batch[take], prompt=stays.prompt[take],
        output=stays.output[take], start=stays.start[take], end=stays.end[take], pieces=uses,
    )  # fmt: skip


def test_a_hinge_of_thousands_of_equal_requests_is_shared_alike() -> None:
    stays = resolve(Batches(np.zeros(1200, dtype=np.int64), np.full(1200, 3), np.ones(1200)))
    shares = Hinge(1.0, 3590.5, "prompt").shares(stays)
    np.testing.assert_allclose(shares, 9.5 / 1200, rtol=1e-11)
