"""The Triton kernel of lattice noise on a CPU, against the slow reference. `test_kernels` runs this.

Triton's interpreter cuts numbers to bfloat16 where a GPU rounds them, so copies are in float32 and float16 here.
"""

import os
from unittest import mock

import numpy as np
import pytest
import torch

from acr_ray.smoothing import lattice_kernel, lattice_torch
from acr_ray.smoothing.lattice import LatticeDraws
from acr_ray.smoothing.lattice_law import LatticeLaw
from acr_ray.smoothing.lattice_reference import number, stream_key
from acr_ray.smoothing.lattice_torch import key_words
from tests.fakes.interpreter import check_planted, watched

assert os.environ.get("TRITON_INTERPRET") == "1", "run test_kernels.py"

DIGITS, CIFAR, COARSE, FINE = (LatticeLaw(*law) for law in ((0.5, 128), (0.5, 255), (0.1, 3), (6.0, 255)))
KEYS = [stream_key(7, name, "estimate") for name in ("a", "b", "c")]
# Law, first draw, draws, coordinates: below and above a program's 128, and where a counter's words carry.
CASES = (
    (DIGITS, 0, 3, 64),
    (CIFAR, 2**32 - 2, 3, 37),
    (COARSE, 5, 3, 1),
    (FINE, 10**12, 2, 90),
    (CIFAR, 2**54 + 3, 1, 129),
)


def drawn(kernel, law, keys, first, draws, coordinates):
    table, words = kernel.DeviceTable.of(law, "cpu"), key_words(list(keys), "cpu")
    return watched(kernel.steps, table, words, torch.tensor(first), draws, coordinates).numpy()


def check_reference(kernel, law, first, draws, coordinates):
    found = drawn(kernel, law, KEYS[:2], first, draws, coordinates)
    for key, of_key in zip(KEYS, found, strict=False):
        for d, row in enumerate(of_key):
            assert row.tolist() == [number(law, key, first + d, c, coordinates) for c in range(coordinates)]


def check_undecided(kernel, draws=10):
    """Against numpy, itself equal to the reference: enough numbers that the first 16 bits leave some open."""
    expected = LatticeDraws(CIFAR)(KEYS, 0, draws, 1500)
    assert (drawn(kernel, CIFAR, KEYS, 0, draws, 1500) == expected).all()


def check_copies(kernel, dtype=torch.float32):
    shape, step = (5, 6, 3), float(np.float32(1 / 255))
    images = torch.randint(0, 256, (3, *shape), generator=torch.Generator().manual_seed(0)).to(torch.int16)
    for first in (torch.tensor(7), torch.tensor([[7], [0], [2**33]])):
        given = images, key_words(KEYS, "cpu"), first, 4, step, dtype
        found = watched(kernel.copies, kernel.DeviceTable.of(CIFAR, "cpu"), *given)
        expected = lattice_torch.copies(lattice_torch.DeviceTable.of(CIFAR, "cpu"), *given)
        assert found.shape == (3, 4, *shape) and found.dtype == dtype and torch.equal(found, expected)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_numbers_are_the_references(case):
    check_reference(lattice_kernel, *case)


def test_numbers_that_the_first_bits_leave_open_are_right():
    check_undecided(lattice_kernel)


def test_numbers_depend_on_key_draw_and_coordinate_alone():
    whole = drawn(lattice_kernel, CIFAR, KEYS, 0, 12, 300)
    for first, draws, keys in [(0, 7, [0]), (7, 5, [2, 0]), (11, 1, [1, 1, 2]), (3, 2, [2, 1, 0])]:
        part = drawn(lattice_kernel, CIFAR, [KEYS[k] for k in keys], first, draws, 300)
        assert (part == whole[keys, first : first + draws]).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_copies_are_those_of_torch(dtype):
    check_copies(lattice_kernel, dtype)


@pytest.mark.parametrize("groups", [16, 64])
def test_how_many_a_program_draws_makes_no_difference(groups):
    expected = drawn(lattice_kernel, CIFAR, KEYS, 3, 2, 600)
    with mock.patch.object(lattice_kernel, "GROUPS", groups):
        assert (drawn(lattice_kernel, CIFAR, KEYS, 3, 2, 600) == expected).all()


def everything(kernel):
    check_copies(kernel)
    for case in CASES:
        check_reference(kernel, *case)
    check_undecided(kernel)


# Lines of the kernel and what becomes of them.
FAULTS = {
    "no fault": ("", ""),
    "halves exchanged": ("(word & 65535).to(tl.int32), (word >> 16)", "(word >> 16).to(tl.int32), (word & 65535)"),
    "words exchanged": ("_halves(w2)), tl.join(_halves(w1)", "_halves(w1)), tl.join(_halves(w2)"),
    "low word of the key alone": ("(tl.load(keys + 2 * image + 1) << 32) | ", ""),
    "high word of the counter forgotten": (
        "key, counter.to(tl.uint32), (counter >> 32).to(tl.uint32)",
        "key, counter.to(tl.uint32), zeros",
    ),
    "further bits that are the first ones": (" + tl.full((), 2147483648, tl.uint32)", ""),
    "signs of the further bits": ("((second.to(tl.int64) - 2147483648) << 32)", "(second.to(tl.int64) << 32)"),
    "open numbers left": ("begin - reach, number)", "number, number)"),
    "a group too few for the last coordinates": ("(coordinates + 7) // 8", "coordinates // 8"),
    "a pair too few for the last coordinate": ("(coordinates + 1) // 2", "coordinates // 2"),
    "the first image's draws for all": ("image * of_first", "0"),
    "the image of another": ("image.to(tl.int64) * coordinates + at", "at"),
    "written behind the end": ("tl.store(out + place, value, mask=exists)", "tl.store(out + place, value)"),
}


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_planted_faults_are_caught(fault, tmp_path):
    check_planted(lattice_kernel, *FAULTS[fault], everything, tmp_path)
