"""Lattice noise: its law exactly, its bits everywhere the same."""

import hashlib
import itertools
import math
import random
from bisect import bisect_right
from fractions import Fraction
from pathlib import Path

import mpmath
import numpy as np
import pytest
import torch
from scipy import stats

from acr_ray.smoothing import lattice, lattice_reference, lattice_torch, philox
from acr_ray.smoothing.lattice import LatticeDraws, Table
from acr_ray.smoothing.lattice_law import BITS, LatticeLaw, alpha_left, levels_for, noise_share
from acr_ray.smoothing.lattice_reference import number, philox4x32, stream_key
from acr_ray.smoothing.lattice_torch import DeviceTable, key_words, steps
from acr_ray.smoothing.philox import by_numpy, random_words

#: Of the Random123 library (kat_vectors): counter, key, words.
VECTORS = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((2**32 - 1,) * 4, (2**32 - 1,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]
DIGITS, CIFAR = LatticeLaw(0.5, 128), LatticeLaw(0.5, 255)
LAWS = [DIGITS, CIFAR, LatticeLaw(0.25, 510), LatticeLaw(1.0, 255), LatticeLaw(0.1, 3), LatticeLaw(6.0, 255)]
KEYS = [stream_key(7, name, "estimate") for name in ("a", "b", "c")]


def with_numpy(law, keys, first, draws, coordinates):
    return LatticeDraws(law)(keys, first, draws, coordinates)


def with_numpy_alone(law, keys, first, draws, coordinates):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(philox, "torch_has_it", lambda: False)
        return with_numpy(law, keys, first, draws, coordinates)


def with_torch(law, keys, first, draws, coordinates):
    table = DeviceTable.of(law, "cpu")
    return steps(table, key_words(keys, "cpu"), torch.tensor(first), draws, coordinates).numpy()


def slowly(law, keys, first, draws, coordinates):
    return np.array(
        [
            [[number(law, key, first + d, c, coordinates) for c in range(coordinates)] for d in range(draws)]
            for key in keys
        ]
    )


FAST = [with_numpy, with_numpy_alone, with_torch]


@pytest.mark.parametrize(("counter", "key", "words"), VECTORS)
def test_philox_gives_the_published_words(counter, key, words):
    assert philox4x32(counter, key) == words
    found = lattice_torch.philox(tuple(torch.tensor([word]) for word in counter), tuple(map(torch.tensor, key)))
    assert tuple(int(word[0]) for word in found) == words


@pytest.mark.parametrize("words", [random_words, by_numpy])
def test_consecutive_counters_give_the_references_words(words):
    keys, first = np.array([0, 2**64 - 1, 12345], "u8"), np.array([0, 2**63 + 2**40, 2**32 - 2], "u8")
    found = words(keys, first, 5).tolist()
    for row, key, start in zip(found, keys.tolist(), first.tolist(), strict=True):
        each = [philox4x32((n % 2**32, n // 2**32, 0, 0), (key % 2**32, key // 2**32)) for n in range(start, start + 5)]
        assert row == [word for four in each for word in four]


def test_another_philox_of_torchs_would_not_be_taken(monkeypatch):
    monkeypatch.setattr(philox, "_by_torch", lambda *given: by_numpy(*given) ^ np.uint32(1))
    assert not philox.torch_has_it.__wrapped__()
    monkeypatch.setattr(philox, "_by_torch", by_numpy)
    assert philox.torch_has_it.__wrapped__()


def test_a_key_is_the_beginning_of_a_digest():
    text = b"lattice/1\n7\nestimate\ndigits/0012"
    assert stream_key(7, "digits/0012", "estimate") == int.from_bytes(hashlib.sha256(text).digest()[:8], "little")
    names, seeds, phases = ("a", "b", "a\nb", "\udcff"), (0, 1, 2**63 - 1), ("select", "estimate", "estimate/1")
    keys = {stream_key(seed, name, phase) for name in names for seed in seeds for phase in phases}
    assert len(keys) == 36


@pytest.mark.parametrize("law", LAWS, ids=str)
def test_thresholds_are_the_normal_distributions_to_80_bits(law):
    with mpmath.workprec(400):
        thresholds, places = law.thresholds(), range(-law.reach, law.reach)
        assert list(thresholds) == sorted(thresholds) and (thresholds[0], thresholds[-1]) == (0, 2**BITS)
        seen = range(len(places)) if law.reach < 700 else sorted(random.Random(0).sample(range(len(places)), 500))
        for i in seen:
            x = mpmath.mpf(2 * places[i] + 1) / (2 * law.levels * mpmath.mpf(law.sigma))
            assert abs(mpmath.ncdf(x) * 2**BITS - thresholds[i]) <= 0.5 + 2**-50, places[i]


@pytest.mark.parametrize("law", LAWS, ids=str)
def test_drawn_probabilities_differ_from_the_exact_ones_by_the_total_variation_at_most(law):
    if law.reach > 3000:
        pytest.skip("as the others, only longer")
    with mpmath.workprec(300):
        edges = [mpmath.mpf(2 * k + 1) / (2 * law.levels * mpmath.mpf(law.sigma)) for k in range(-law.reach, law.reach)]
        exact = [mpmath.mpf(0), *map(mpmath.ncdf, edges), mpmath.mpf(1)]
        drawn = [0, *(mpmath.mpf(t) / 2**BITS for t in law.thresholds()), 1]
        differences = [
            abs((b - a) - (d - c))
            for (a, b), (c, d) in zip(itertools.pairwise(exact), itertools.pairwise(drawn), strict=True)
        ]
        assert max(differences) < 2**-60
        assert sum(differences) / 2 <= law.total_variation < 2**-60


@pytest.mark.parametrize("draw", FAST)
@pytest.mark.parametrize(
    ("law", "first", "draws", "coordinates"),
    [(DIGITS, 0, 3, 64), (CIFAR, 2**32 - 2, 4, 37), (LAWS[3], 10**12, 2, 48), (LAWS[4], 5, 3, 1), (LAWS[5], 0, 2, 90)],
)
def test_fast_paths_equal_the_reference(draw, law, first, draws, coordinates):
    assert (draw(law, KEYS, first, draws, coordinates) == slowly(law, KEYS, first, draws, coordinates)).all()


@pytest.mark.parametrize("draw", FAST)
def test_numbers_depend_on_key_draw_and_coordinate_alone(draw):
    """Any cut into blocks, any order, any number of images at once."""
    whole = draw(CIFAR, KEYS, 0, 60, 300)
    for first, draws, keys in [(0, 7, [0]), (7, 53, [2, 0]), (59, 1, [1, 1, 2]), (13, 20, [2, 1, 0])]:
        part = draw(CIFAR, [KEYS[k] for k in keys], first, draws, 300)
        assert (part == whole[keys, first : first + draws]).all()
    assert (whole == with_numpy(CIFAR, KEYS, 0, 60, 300)).all()


def test_chunks_of_any_size_give_the_same_numbers(monkeypatch):
    whole = with_numpy(CIFAR, KEYS, 3, 40, 1000)
    for at_once in (1, 16, 100, 1000, 2**20):
        monkeypatch.setattr(lattice, "AT_ONCE", at_once)
        some = slice(None) if at_once > 10 else slice(0, 2)
        assert (with_numpy(CIFAR, KEYS[some], 3, 40, 1000)[:, :2] == whole[some, :2]).all()


@pytest.mark.parametrize("law", [DIGITS, LAWS[4]], ids=str)
def test_80_bits_beside_every_threshold_are_settled_exactly(law):
    """Ties in the first 16, 64 and all 80 bits: one below a threshold, the threshold itself, and one above."""
    table, thresholds = Table(law), law.thresholds()
    near = {t + d for t in thresholds for d in (-(2**16), -1, 0, 1, 2**16)}
    bits = sorted(u for u in near if 0 <= u < 2**BITS)
    first = np.array([u >> 64 for u in bits])
    further = np.array([u % 2**64 for u in bits], dtype=np.uint64)
    expected = np.array([bisect_right(thresholds, u) - law.reach for u in bits])
    guess = table.guide[first]
    left = guess == lattice.UNDECIDED
    assert (guess[~left] == expected[~left]).all() and left.sum() > len(bits) / 2
    assert (table.settled(first[left], further[left]) == expected[left]).all()
    assert (table.guide != lattice.UNDECIDED).mean() > 0.95


def law_tests(law, count, keys=2, coordinates=1000):
    """Smallest p-value of chi-square and Kolmogorov-Smirnov, and z-scores of the first four moments."""
    per = count // (keys * coordinates)
    draws = LatticeDraws(law)
    seen = np.zeros(2 * law.reach + 1, dtype=np.int64)
    portion = max(1, 10**6 // coordinates)
    for key in range(keys):
        for first in range(0, per, portion):
            drawn = draws([stream_key(3, f"law/{key}", "estimate")], first, min(portion, per - first), coordinates)
            seen += np.bincount(drawn.ravel() + np.int64(law.reach), minlength=len(seen))
    total = int(seen.sum())
    below = np.array([0, *(t / 2**BITS for t in law.thresholds()), 1.0])
    chance = np.diff(below)
    common = chance * total >= 10
    low, high = np.flatnonzero(common)[[0, -1]]
    counts = [seen[:low].sum(), *seen[low : high + 1], seen[high + 1 :].sum()]
    expected = np.array([chance[:low].sum(), *chance[low : high + 1], chance[high + 1 :].sum()]) * total
    p_chi = stats.chisquare(counts, expected * (sum(counts) / expected.sum())).pvalue
    distance = np.abs(np.cumsum(seen) / total - below[1:]).max()
    p_ks = stats.kstwobign.sf(distance * math.sqrt(total))  # conservative: the law has atoms
    values = np.arange(-law.reach, law.reach + 1) / (law.sigma * law.levels)
    scores = []
    for power in (1, 2, 3, 4):
        exact, spread = (chance * values**power).sum(), (chance * values ** (2 * power)).sum()
        found = (seen * values**power).sum() / total
        scores.append((found - exact) / math.sqrt((spread - exact**2) / total))
    return min(p_chi, p_ks), scores


def test_ten_million_numbers_follow_the_law():
    p_value, scores = law_tests(DIGITS, 10**7)
    assert p_value > 1e-4 and max(map(abs, scores)) < 4.5
    # As sharp as it should be: noise of a sigma 0.2 % larger is seen.
    other = LatticeLaw(0.501, 128)
    assert other.reach >= DIGITS.reach
    drawn = LatticeDraws(other)(KEYS, 0, 3300, 1000)
    assert abs((drawn / 64.0).var() - 1.0) * math.sqrt(drawn.size / 2) > 4.5


@pytest.mark.slow
@pytest.mark.parametrize("law", [DIGITS, CIFAR], ids=str)
def test_a_hundred_million_numbers_follow_the_law(law):
    p_value, scores = law_tests(law, 10**8, keys=10)
    assert p_value > 1e-4 and max(map(abs, scores)) < 4.5


def test_numbers_of_other_keys_draws_and_coordinates_are_independent():
    """Correlations of neighbours, of their squares, and of equal places under keys that differ in one bit."""
    keys = [0, 1, 2**31, 2**32, 2**63]
    drawn = LatticeDraws(DIGITS)(keys, 0, 2000, 64) / 64.0
    pairs = [(drawn[:, :, :-1], drawn[:, :, 1:]), (drawn[:, :-1], drawn[:, 1:]), (drawn[:, :, :56], drawn[:, :, 8:])]
    pairs += [(drawn[i], drawn[j]) for i, j in itertools.combinations(range(5), 2)]
    pairs += [(a**2 - 1, b**2 - 1) for a, b in pairs]
    for a, b in pairs:
        score = (a * b).mean() / (a.std() * b.std()) * math.sqrt(a.size)
        assert abs(score) < 4.5


@pytest.mark.parametrize(
    ("sigma", "grid", "levels"),
    [
        (0.5, 255, 255),
        (0.25, 255, 510),
        (0.12, 255, 1020),
        (1.0, 255, 255),
        (0.5, 16, 128),
        (1.0, 16, 64),
        (1e-4, 255, 16320),
    ],
)
def test_the_step_is_the_images_grid_refined_until_sigma_is_64_steps(sigma, grid, levels):
    assert levels_for(sigma, grid) == levels
    law = LatticeLaw(sigma, levels)
    assert levels + law.reach < 2**14


def test_noise_that_does_not_fit_16_bits_is_refused():
    with pytest.raises(ValueError, match=r"sigma 7 is too large .* 1/255.*up to 6\.\d+, or --noise float"):
        levels_for(7.0, 255)
    assert levels_for(6.1, 255) == 255


def test_the_noises_share_of_alpha_is_draws_times_coordinates_times_total_variation():
    share = noise_share(0.5, 255, 3072, 100_100)
    assert share == 100_100 * 3072 * CIFAR.total_variation and 0 < share < 1e-11
    left = alpha_left(0.001, share)
    assert left < 0.001 and Fraction(left) <= Fraction(0.001) - Fraction(share) and 0.001 - left < 2 * share
    assert alpha_left(0.001, 0.0) == 0.001
    with pytest.raises(ValueError, match="nothing is left"):
        alpha_left(1e-13, share)


def test_the_pages_test_vectors_are_the_references():
    page = (Path(__file__).parents[2] / "docs" / "noise.md").read_text().replace("−", "-")
    key, law = stream_key(0, "digits/0012", "estimate"), LatticeLaw(0.5, 128)
    assert f"| {key:016X} |" in page
    for draw, coordinates in [(0, range(8)), (2**32 + 5, range(56, 64))]:
        assert f"| {' '.join(str(number(law, key, draw, i, 64)) for i in coordinates)} |" in page
    for *_, words in VECTORS:
        assert " ".join(f"{word:08X}" for word in words) in page


def test_the_reference_is_what_it_says():
    """One number by hand: the definition, with exact fractions in place of thresholds."""
    key, draw, coordinate, coordinates = KEYS[0], 2**32 + 5, 19, 24
    counter = draw * 3 + 19 // 8
    words = philox4x32((counter % 2**32, counter >> 32, 0, 0), (key % 2**32, key >> 32))
    lane = 19 % 8
    first = words[lane // 2] // (2**16 if lane % 2 else 1) % 2**16
    counter = 2**63 + draw * 12 + 19 // 2
    more = philox4x32((counter % 2**32, counter >> 32, 0, 0), (key % 2**32, key >> 32))
    u = Fraction(first * 2**64 + more[2] + 2**32 * more[3], 2**BITS)
    found = lattice_reference.number(CIFAR, key, draw, coordinate, coordinates)
    with mpmath.workprec(300):
        below, above = (mpmath.ncdf(mpmath.mpf(2 * k + 1) / (2 * 255 * mpmath.mpf(0.5))) for k in (found - 1, found))
        assert below <= mpmath.mpf(u.numerator) / u.denominator <= above
