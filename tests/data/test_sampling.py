from collections import Counter

import numpy as np
import pytest

from acr_ray.data.chance import uniforms
from acr_ray.data.sampling import Population, draw_epoch, pick_by_weight, share, steps, view_seeds


def test_epoch_without_population_is_a_permutation():
    drawn = draw_epoch(7, 3, 1297)
    assert drawn.dtype == np.int64
    assert sorted(drawn) == list(range(1297))
    assert not np.array_equal(drawn, draw_epoch(7, 4, 1297))
    assert not np.array_equal(drawn, draw_epoch(8, 3, 1297))
    assert np.array_equal(drawn, draw_epoch(7, 3, 1297))


def test_sequences_are_frozen():
    """Old runs resume on the same samples whatever the versions of numpy and of this package."""
    assert draw_epoch(0, 0, 10).tolist() == FROZEN_PERMUTATION
    assert draw_epoch(0, 1, 10, Population(np.array([5, 9, 11]))).tolist() == FROZEN_UNIFORM
    assert draw_epoch(0, 1, 10, Population(np.array([5, 9, 11]), np.array([1.0, 0, 3]))).tolist() == FROZEN_WEIGHTED
    assert view_seeds(0, 2, np.array([0, 1, 255])).tolist() == FROZEN_SEEDS


def test_global_random_state_of_numpy_is_left_alone():
    np.random.seed(1)
    before = np.random.get_state()[1].copy()
    draw_epoch(0, 0, 100)
    uniforms([1, 2], 3)
    assert np.array_equal(before, np.random.get_state()[1])


@pytest.mark.parametrize("world", [1, 2, 3, 4])
@pytest.mark.parametrize(
    "population", [None, Population(np.arange(0, 99, 3)), "weighted"], ids=["all", "kept", "weights"]
)
def test_all_ranks_together_see_what_one_worker_sees(world, population):
    if population == "weighted":
        population = Population(np.arange(0, 99, 3), np.linspace(0, 1, 33))
    sequence = draw_epoch(1, 5, 99, population)
    for step in steps(99, 16):
        alone = share(step, 0, 1)
        whole = list(zip(sequence[alone], view_seeds(1, 5, alone).tolist(), strict=True))
        parts = []
        for rank in range(world):
            own = draw_epoch(1, 5, 99, population)  # each rank draws for itself
            positions = share(step, rank, world)
            parts += list(zip(own[positions], view_seeds(1, 5, positions).tolist(), strict=True))
        assert Counter(parts) == Counter(whole)


def test_shares_differ_by_at_most_one_and_are_disjoint():
    shares = [share(slice(32, 45), rank, 4) for rank in range(4)]
    assert sorted(np.concatenate(shares)) == list(range(32, 45))
    assert {len(s) for s in shares} == {3, 4}


@pytest.mark.parametrize(
    ("size", "inputs", "lengths"),
    [
        (256, 64, [64] * 4),
        (257, 64, [64, 64, 64, 65]),
        (263, 64, [64, 64, 64, 71]),
        (264, 64, [64, 64, 64, 64, 8]),
        (3, 64, [3]),
        (5, 1, [1] * 5),
        (67, 64, [67]),
        (25, 12, [12, 13]),
        (26, 12, [12, 12, 2]),
        (9, 4, [4, 4, 1]),
        (1297, 64, [64] * 20 + [17]),
    ],
)
def test_steps_cover_the_sequence_and_small_remainders_join(size, inputs, lengths):
    found = steps(size, inputs)
    assert [s.stop - s.start for s in found] == lengths
    assert np.concatenate([np.arange(s.start, s.stop) for s in found]).tolist() == list(range(size))


def test_a_loader_batch_in_m_chunks_is_m_consecutive_steps():
    sequence = draw_epoch(0, 0, 1024)
    chunks = [chunk for start in range(0, 1024, 256) for chunk in np.split(sequence[start : start + 256], 4)]
    assert all(np.array_equal(a, sequence[s]) for a, s in zip(chunks, steps(1024, 64), strict=True))


def test_draws_follow_the_weights():
    kept = np.array([2, 3, 5, 7])
    weights = np.array([0.0, 1.0, 2.0, 5.0])
    drawn = draw_epoch(3, 0, 80_000, Population(kept, weights))
    shares = np.array([(drawn == item).mean() for item in kept])
    assert shares[0] == 0
    # 5 standard deviations of a share of 80,000 draws are below 0.009
    assert np.abs(shares - weights / 8).max() < 0.009
    uniform = draw_epoch(3, 0, 80_000, Population(kept))
    assert max(abs((uniform == item).mean() - 0.25) for item in kept) < 0.009


def test_items_of_weight_zero_are_never_picked_not_even_at_the_edges():
    last = 1 - 2.0**-53
    u = np.array([0.0, 0.25, 0.5, last])
    assert pick_by_weight(u, np.array([0.0, 1.0, 0.0, 3.0, 0.0])).tolist() == [1, 3, 3, 3]
    # The smallest number there is: u times it rounds up to it.
    assert pick_by_weight(u, np.array([0.0, 5e-324, 0.0])).tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize(
    ("kept", "weights"),
    [([], None), ([[1]], None), ([1, 2], [1.0]), ([1], [0.0]), ([1, 2], [2.0, -1.0]), ([1], [np.nan]), ([1], [np.inf])],
)
def test_impossible_populations_are_refused(kept, weights):
    with pytest.raises(ValueError, match="kept|weights"):
        Population(np.array(kept), None if weights is None else np.array(weights))


def test_view_seeds_are_distinct_and_each_depends_on_its_own_position_alone():
    seeds = view_seeds(0, 1, np.arange(100_000))
    assert seeds.dtype == np.int64 and (seeds >= 0).all()
    assert len(np.unique(seeds)) == 100_000
    here = np.array([77])
    one, others = view_seeds(0, 1, here), (view_seeds(0, 2, here), view_seeds(0, 1, here, "estimate"))
    assert one[0] == seeds[77] and len({int(seed[0]) for seed in (one, *others)}) == 3


def test_uniforms_are_uniform_and_uncorrelated():
    u = uniforms(np.arange(50_000), 3)
    assert u.min() >= 0 and u.max() < 1
    assert np.abs(u.mean(axis=0) - 0.5).max() < 5 * (1 / 12 / 50_000) ** 0.5
    assert np.abs(np.corrcoef(u.T) - np.eye(3)).max() < 5 / 50_000**0.5
    assert abs(np.corrcoef(u[1:, 0], u[:-1, 0])[0, 1]) < 5 / 50_000**0.5


FROZEN_PERMUTATION = [5, 9, 1, 2, 4, 7, 3, 0, 8, 6]
FROZEN_UNIFORM = [9, 11, 11, 9, 11, 11, 11, 9, 11, 5]
FROZEN_WEIGHTED = [11, 11, 11, 11, 11, 11, 11, 11, 11, 5]
FROZEN_SEEDS = [7916776347877334304, 7618199571436405997, 1949854175461015412]
