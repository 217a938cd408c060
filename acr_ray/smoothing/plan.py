"""How the draws of one image are cut into blocks. Pure arithmetic, no torch.

A block is the unit of noise: one seed, one fixed shape, one forward pass. Its counts are the same whoever computes
them, so blocks can be spread over actors, repeated after a fault and added in any order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from acr_ray.settings.seeds import derive_seed

SELECT = "select"  # the n0 draws that choose the class
ESTIMATE = "estimate"  # the n fresh draws behind the bound


@dataclass(frozen=True)
class Phase:
    """The draws for one purpose.

    Attributes:
        name: part of every seed, so that selection draws are never reused in the bound.
        draws: predictions that count, >= 1.
        block: draws of one seed, >= 1. The last block is drawn whole and its surplus predictions are dropped, so
            the first ``draws`` predictions are the same whatever ``draws`` is.
    """

    name: str
    draws: int
    block: int

    @property
    def blocks(self) -> int:
        return -(-self.draws // self.block)

    def counted(self, block: int) -> int:
        """How many predictions of block number ``block`` count."""
        return min(self.block, self.draws - block * self.block)

    def counted_between(self, first: int, stop: int) -> int:
        """How many predictions of the blocks ``first`` to ``stop - 1`` count, 0 <= first < stop <= `blocks`."""
        return min(stop * self.block, self.draws) - first * self.block

    def seed(self, run_seed: int, image: str, block: int) -> int:
        return derive_seed(run_seed, "noise", image, self.name, block)


def phases(n0: int, n: int, block: int) -> tuple[Phase, Phase]:
    """The two phases of CERTIFY. Selection, which is short, uses a block of its own size where that is smaller."""
    return Phase(SELECT, n0, min(n0, block)), Phase(ESTIMATE, n, min(n, block))


def staged(n0: int, looks: Sequence[int], block: int) -> tuple[Phase, ...]:
    """The phases of a stopping rule: selection, then one phase for the draws up to each look.

    With one look these are the phases of CERTIFY. With more, the draws between two looks are cut into blocks as
    equal as can be, so that a surplus is smaller than the number of blocks.

    Args:
        looks: cumulative estimation draws, increasing.
    """
    if len(looks) == 1:
        return phases(n0, looks[0], block)
    between = [b - a for a, b in zip((0, *looks[:-1]), looks, strict=True)]
    sizes = [-(-draws // -(-draws // block)) for draws in between]
    stages = (Phase(f"{ESTIMATE}/{i}", d, size) for i, (d, size) in enumerate(zip(between, sizes, strict=True), 1))
    return (phases(n0, 1, block)[0], *stages)
