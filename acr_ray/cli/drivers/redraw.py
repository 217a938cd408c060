"""What an audit draws with: the model and the images of a run, in this process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from acr_ray.certification.audit import Audited, int8_network
from acr_ray.certification.sampler import Arithmetic, Sampler, SampleRequest
from acr_ray.certification.work_items import group_of
from acr_ray.cli.drivers.certification_inputs import info_of
from acr_ray.cli.drivers.models import open_model
from acr_ray.data import ImageSet, open_images
from acr_ray.models import state_bytes
from acr_ray.settings import CertifySettings, UserError
from acr_ray.settings.datasets import needs_root
from acr_ray.settings.imports import ImportChoices
from acr_ray.settings.own_code import is_own
from acr_ray.smoothing.plan import SELECT, Phase
from acr_ray.storage import Folder


def drawer(
    run: Audited,
    checkpoint: str,
    root: str | None,
    class_map: str | None = None,
    dataset: str | None = None,
    choices: ImportChoices | None = None,
    folder: Folder | None = None,
) -> Callable[[str, Phase, int, int], NDArray[np.int64]]:
    """Make what draws blocks as the run's samplers did; ``folder`` is the run's, for its int8 network.

    Raises:
        UserError: model or images are not the run's, or an int8 network is not there.
    """
    s = run.plan.settings

    def images_of_run() -> ImageSet:
        if is_own(s.dataset) and dataset != s.dataset:
            raise UserError(
                f"--redraw: the images of {run.where} come from the code {s.dataset}; to run it, name it: --dataset"
            )
        if root is None and needs_root(s.dataset):
            # The run's file names a place; it is shown, never opened: somebody else may have written it.
            raise UserError(
                f"--redraw: needs the images of {run.where} ({s.dataset}, were in {s.root}); give --data.root"
            )
        return open_images(s.dataset, root, s.split, class_map, s.image_options)

    model, card = open_model(checkpoint, choices or ImportChoices(), lambda: info_of(images_of_run()))
    if card.sha256 != run.plan.model_sha256:
        raise UserError(f"--checkpoint {checkpoint}: not the model of {run.where} (its SHA-256 is another)")
    images = images_of_run().in_order_of(card.class_names, f"--checkpoint {checkpoint}")
    place = {name: i for i, name in enumerate(images.names)}
    absent = [name for name in run.plan.names if name not in place]
    if absent:
        raise UserError(f"--data.root {root}: {absent[0]} of {run.where} is not there")
    here = images.subset([place[name] for name in run.plan.names])
    if here.fingerprint() != run.plan.data:
        raise UserError(f"--data.root {root}: other images than those of {run.where}")
    int8 = int8_network(run, folder, "--redraw")
    arithmetic = replace(arithmetic_here(s), int8=int8)
    sampler = Sampler(card, state_bytes(model), s.sigma, s.seed, arithmetic)
    names = list(run.plan.names)

    def draw(name: str, phase: Phase, first: int, stop: int) -> NDArray[np.int64]:
        at = names.index(name)
        # Selection draws of neighbours share a forward pass, and its shape may touch a logit's last bit. Passes that
        # all images share have one shape, whatever is in them.
        neighbours = phase.name == SELECT and s.pass_rows is None
        group = group_of(at, len(names), phase, s.block) if neighbours else [at]
        pixels = here.load(group, None).numpy()
        ((counts, _),) = sampler.draw([SampleRequest(tuple(names[i] for i in group), pixels, phase, first, stop)])
        return counts[list(group).index(at)]

    return draw


def arithmetic_here(settings: CertifySettings) -> Arithmetic:
    """The run's arithmetic; on a machine without a GPU the CPU's, if the run's noise is the same there."""
    asked = Arithmetic.of(settings)
    if asked.levels is None or asked.device == "cpu" or torch.cuda.is_available():
        return asked
    return replace(asked, device="cpu", compiled=False)
