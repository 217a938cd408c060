"""Forward passes of one shape, filled with the draws of whatever images lack some.

A stopping rule asks for a few draws of an image at a time. One image to a pass would leave a GPU idle, and passes of
many shapes make one network several classifiers, since a shape decides the last bits of a logit. Here every pass has
the same number of rows, each row its own image, stream of noise and draw, so what a row answers does not depend on what
shares its pass, and the certificates speak of one classifier.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from acr_ray.smoothing.engine import BrokenModelError, SamplingEngine, evaluating
from acr_ray.smoothing.lattice_reference import stream_key
from acr_ray.smoothing.noise import LatticeNoise, Places
from acr_ray.smoothing.plan import Phase


@dataclass(frozen=True)
class Asked:
    """Draws of some images.

    Attributes:
        names: stable names of the images.
        phase: what the draws are for.
        first, stop: blocks ``first`` to ``stop - 1`` of it; only draws that count are drawn.
    """

    names: tuple[str, ...]
    phase: Phase
    first: int
    stop: int

    @property
    def draws(self) -> int:
        """Draws of each image."""
        return self.phase.counted_between(self.first, self.stop)

    @property
    def rows(self) -> int:
        """Draws of all images."""
        return len(self.names) * self.draws


class SharedPasses:
    """Counts the answers to the draws of many images in passes of one shape.

    Args:
        engine: of the network, with lattice noise: float noise comes in blocks.
        rows: of every pass.

    Attributes:
        rows: of every pass.
        passes: that were made.
        drawn: rows in them that somebody asked for.
    """

    def __init__(self, engine: SamplingEngine, rows: int) -> None:
        if not isinstance(engine.noise, LatticeNoise):
            raise ValueError("shared passes need lattice noise: float noise comes in blocks of one image")
        self._engine, self._noise, self.rows = engine, engine.noise, rows
        self.passes = self.drawn = 0

    def count(self, asked: Sequence[Asked], images: Tensor, places: Sequence[int], run_seed: int) -> list[NDArray]:
        """Class counts of all that is asked for. The device is waited for once, after the last pass.

        Args:
            asked: at least one draw in all.
            images: of the noise's `placed`, each image once.
            places: where in ``images`` those of ``asked`` lie, one after the other.
            run_seed: of the noise.

        Returns:
            int64 ``(images, num_classes)`` for each that asked, each row summing to its draws.

        Raises:
            BrokenModelError: a logit is not finite; says of which image.
        """
        return self._by_asker(asked, self._totals(asked, images, places, run_seed).cpu().numpy())

    def _totals(self, asked: Sequence[Asked], images: Tensor, places: Sequence[int], run_seed: int) -> Tensor:
        """Class counts of each image in turn, and last how many answers are none, ``(images, num_classes + 1)``."""
        engine, classes = self._engine, self._engine.num_classes
        rows, whose = self._plan(asked, places, run_seed)
        owner = torch.from_numpy(whose).to(engine.device).split(self.rows)
        total = torch.zeros(len(places) + 1, classes + 1, dtype=torch.int64, device=engine.device)
        one = torch.ones((), dtype=torch.int64, device=engine.device).expand(self.rows)
        copies = self._noise.passes(images, rows, self.rows)
        with torch.inference_mode(), evaluating(engine.model):
            for mine, noisy in zip(owner, copies, strict=True):
                answers, finite = engine.answers_by_row(noisy)
                answers = torch.where(finite, answers, classes)
                total.view(-1).scatter_add_(0, mine * (classes + 1) + answers, one)
        self.passes += len(owner)
        self.drawn += sum(a.rows for a in asked)
        return total[:-1]

    def _plan(self, asked: Sequence[Asked], places: Sequence[int], run_seed: int) -> tuple[Places, NDArray[np.int64]]:
        """The rows of all passes, one behind the other; and which count each belongs to, ``(N,)``.

        Those that only fill the last pass have a count of their own, the last.
        """
        each = [(a, name) for a in asked for name in a.names]
        keys = np.array([stream_key(run_seed, name, a.phase.name) for a, name in each], dtype=np.uint64)
        draws = np.array([a.draws for a, _ in each])
        owner = np.repeat(np.arange(len(each)), draws)
        image, key = np.asarray(places, dtype=np.int64)[owner], keys[owner]
        draw = np.concatenate([np.arange(a.draws) + a.first * a.phase.block for a, _ in each])
        # What is left of the last pass is a draw again: another shape would be another classifier.
        more = -len(owner) % self.rows
        image, key, draw = (np.pad(part, (0, more), mode="edge") for part in (image, key, draw))
        return Places(image, key, draw), np.pad(owner, (0, more), constant_values=len(each))

    @staticmethod
    def _by_asker(asked: Sequence[Asked], total: NDArray[np.int64]) -> list[NDArray]:
        found, at = [], 0
        for a in asked:
            mine = total[at : at + len(a.names)]
            at += len(a.names)
            if mine[:, -1].any():
                broken = ", ".join(name for name, bad in zip(a.names, mine[:, -1], strict=True) if bad)
                where = f"image {broken}, {a.phase.name} blocks {a.first} to {a.stop - 1}"
                raise BrokenModelError(f"the model answers with NaN or infinite logits ({where})")
            found.append(mine[:, :-1])
        return found
