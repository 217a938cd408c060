"""Validation: images held out from training, and draws that stop where a trial's rank no longer depends on them."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import special, stats

from acr_ray.data import ImageSet, batches
from acr_ray.formats.files import VALIDATION
from acr_ray.settings import UserError, derive_seed
from acr_ray.smoothing.bounds import lower_bound, radius, upper_bound
from acr_ray.smoothing.engine import SamplingEngine
from acr_ray.smoothing.plan import Phase
from acr_ray.storage import Folder
from acr_ray.training.estimate import ROWS
from acr_ray.training.group import Group
from acr_ray.tuning.kept_files import read_image_values
from acr_ray.tuning.objectives import ValidationCounts
from acr_ray.tuning.validation_settings import ValidationSettings


def write_images(folder: Folder, counts: ValidationCounts) -> None:
    """Leave what each validation image counted, in the order of the held-out images; all trials have the same."""
    hard = (counts.right / counts.draws < 0.5).astype(int).tolist()
    folder.write_json(VALIDATION, {"schema_version": 1, "radii": counts.radii.tolist(), "hard": hard})


def read_images(folder: Folder) -> tuple[NDArray[np.float64], NDArray[np.int64]] | None:
    """Radii ``(K,)`` and whether an image is hard, 0 or 1 ``(K,)``, of a trial; None if it left none."""
    if not folder.is_file(VALIDATION):
        return None
    values = read_image_values(folder, VALIDATION)
    return np.array(values["radii"], dtype=np.float64), np.array(values["hard"], dtype=np.int64)


def held_out(images: ImageSet, settings: ValidationSettings, seed: int) -> tuple[ImageSet, ImageSet]:
    """(what is trained on, what is validated on): every class in proportion, the same on every machine.

    Args:
        images: the training split.
        seed: with an image's name it decides who is held out; whoever is added later moves nobody else much.

    Raises:
        UserError: a class would have no image left on one of the sides.
    """
    share = min(settings.share, settings.most / len(images))
    keys = np.array([derive_seed(seed, "validation", name) for name in images.names])
    chosen: list[int] = []
    for c, name in enumerate(images.class_names):
        members = np.flatnonzero(images.labels == c)
        if not len(members):
            continue
        count = min(max(1, round(share * len(members))), len(members) - 1)
        if count < 1:
            raise UserError(f"--validation: class {name} has one image only; nothing can be held out")
        chosen += members[np.argsort(keys[members], kind="stable")[:count]].tolist()
    kept = np.setdiff1d(np.arange(len(images)), chosen)
    return images.subset(kept), images.subset(np.sort(np.array(chosen)))


def expected_radius(right: NDArray, draws: NDArray, n: int, alpha: float, sigma: float) -> NDArray[np.float64]:
    """The radius that n draws certify, as far as these draws tell: exact if they are n.

    Fewer draws are carried on to n at the share (right + 1/2) / (draws + 1) (Krichevsky & Trofimov): all of 50 right
    does not mean all of 2000. No certificate: if an image stops early nothing is promised about its p_A, only
    that trials are compared at one and the same n. A bound that held at every look would be lower the earlier an
    image stops, and would need most of the draws to come near the radius at n.
    """
    share = (right + 0.5) / (draws + 1)
    count = np.where(draws == n, right, np.floor(share * n))
    return radius(lower_bound(count, n, alpha), sigma)


def enough(right: NDArray, draws: NDArray, tolerance: float) -> NDArray[np.bool_]:
    """Which images need no more draws for the sake of the trial's rank.

    Either the standard error of the radius, ``σ √(p (1 - p) / draws) / φ(Φ⁻¹(p))``, is at most ``tolerance`` σ
    (averaged over the images that is less than trials differ by), or p_A < 1/2 at 99 %: the image counts 0.
    """
    p = (right + 0.5) / (draws + 1)
    error = np.sqrt(p * (1 - p) / draws) / stats.norm.pdf(special.ndtri(p))
    return (error <= tolerance) | (upper_bound(right, draws, 0.01) < 0.5)


def validate(
    engine: SamplingEngine, images: ImageSet, settings: ValidationSettings, seed: int, group: Group
) -> ValidationCounts:
    """Count how often each image gets its label, all images at once, look by look, until `enough`.

    A search needs the order of its trials, not their ACR to the last digit. The label is the class that is asked
    about, so no draws go into selecting one. All trials see the same images under the same noise; noise belongs to
    an image and a look, so the counts does not depend on the number of workers.

    Args:
        seed: of the noise.
        group: the workers; each takes a share of the images, all get the whole counts.
    """
    before, looks = engine.evaluations, settings.looks
    right, draws = np.zeros(len(images), dtype=np.int64), np.zeros(len(images), dtype=np.int64)
    items = np.arange(group.rank, len(images), group.world)
    for look, total in enumerate(looks):
        if not len(items):
            break
        fresh = total - (looks[look - 1] if look else 0)
        right[items] += _count(engine, images, items, Phase(f"validation/{look}", fresh, min(fresh, ROWS)), seed)
        draws[items] = total
        items = items[~enough(right[items], draws[items], settings.tolerance)]
    counted = group.sum(np.array([engine.evaluations - before]))
    right, draws = group.sum(right), group.sum(draws)
    radii = expected_radius(right, draws, settings.n, settings.alpha, engine.sigma)
    return ValidationCounts(right, draws, radii, int(counted[0]))


def _count(
    engine: SamplingEngine, images: ImageSet, items: NDArray[np.int64], phase: Phase, seed: int
) -> NDArray[np.int64]:
    size = max(1, ROWS // phase.block)
    parts = [items[at : at + size] for at in range(0, len(items), size)]
    counts = [
        engine.count_label(x, torch.as_tensor(y), [images.names[i] for i in part], seed, phase)
        for part, (x, y) in zip(parts, batches(images, [(part, None) for part in parts]), strict=True)
    ]
    return np.concatenate(counts)
