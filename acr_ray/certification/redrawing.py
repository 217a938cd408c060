"""Blocks of a ledger drawn anew, and how the counts compare. No torch, no Ray: `redraw` is given what draws."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from acr_ray.certification.audit import Audited
from acr_ray.certification.ledger import Ledger
from acr_ray.certification.procedure import Counts, sparse
from acr_ray.certification.work_items import BlockRange
from acr_ray.settings import CertifySettings
from acr_ray.storage import Folder

ROUNDING = 0.01  # share of answers that another device's rounding may change; more is another model


@dataclass(frozen=True)
class Redrawn:
    """A line of a ledger and what came out when its blocks were drawn again."""

    image: str
    block_range: BlockRange
    written: Counts
    drawn: Counts

    @property
    def agrees(self) -> bool:
        return self.written == self.drawn


def redraw(
    run: Audited, folder: Folder, count: int, seed: int, draw: Callable[[str, Any, int, int], NDArray[np.int64]]
) -> list[Redrawn]:
    """Draw some lines of a ledger again, chosen at random.

    Args:
        count: how many, or all there are.
        seed: of the choice.
        draw: ``(image, phase, first, stop)`` to class counts ``(num_classes,)``.
    """
    names = run.plan.names
    ledger = Ledger(folder, names, run.plan.num_classes)
    lines = [(block_range, dict(counts)) for _, (block_range, counts, _) in ledger.lines(run.store.phases)]
    chosen = np.random.default_rng(seed).permutation(len(lines))[:count]
    redrawn = []
    for i in sorted(chosen.tolist()):
        block_range, written = lines[i]
        name, phase = names[block_range.image], run.store.phases[block_range.phase]
        counts = draw(name, phase, block_range.first, block_range.stop)
        drawn = sparse(counts)
        redrawn.append(Redrawn(name, block_range, written, drawn))
    return redrawn


@dataclass(frozen=True)
class Comparison:
    """How a run's lines compare with the same lines drawn again.

    Attributes:
        lines_differing: lines whose counts are not the same.
        answers: noise draws in all lines.
        answers_differing: how many of them, at least, got another class.
        wrong: whether that says that the ledger is not what the model draws.
        told: what it means, in words.
    """

    lines_differing: int
    answers: int
    answers_differing: int
    wrong: bool
    told: str


def compare(lines: Sequence[Redrawn], settings: CertifySettings, device: str) -> Comparison:
    """Say how lines compare, and what that means.

    Args:
        lines: of `redraw`.
        settings: of the run.
        device: ``cpu`` or ``cuda``, on which they were drawn again.
    """
    differing = sum(not line.agrees for line in lines)
    answers = sum(sum(line.written.values()) for line in lines)
    moved = sum(_moved(line) for line in lines)
    count = f"{moved:,} of {answers:,} answers"
    same_noise = settings.noise == "lattice"
    where = f"the ledger was drawn on {settings.device}, this is {device}"
    if not differing:
        noise = "noise and answers are those of the ledger" if same_noise else "counts are those of the ledger"
        told, wrong = f"redrawn: {len(lines)} lines agree exactly ({answers:,} answers): {noise}", False
    elif not same_noise:
        told, wrong = f"redrawn: at least {count} differ ({where})", True
    elif device == settings.device:
        told, wrong = (
            f"redrawn: at least {count} differ. The noise is the same on every machine, so model, images or the "
            f"network's arithmetic ({device}) are not those of the ledger",
            True,
        )
    else:
        wrong = moved > ROUNDING * answers
        meaning = "far more than rounding explains: model or images are not those of the ledger"
        if not wrong:
            meaning = (
                "the noise is the same, the network rounds otherwise there; what is certified is the network as the "
                "ledger's device computes it"
            )
        told = f"redrawn: at least {count} differ ({where}): {meaning}"
    return Comparison(differing, answers, moved, wrong, told)


def _moved(line: Redrawn) -> int:
    classes = {*line.written, *line.drawn}
    return sum(max(0, line.written.get(c, 0) - line.drawn.get(c, 0)) for c in classes)
