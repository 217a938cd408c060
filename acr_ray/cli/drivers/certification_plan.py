"""The plan of a certification, before anything of it runs: pilot draws, the measured rate, and a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from torch import nn

from acr_ray.certification.forecast import choose_pilot, forecasts
from acr_ray.certification.local_pool import drawing_here
from acr_ray.certification.planned import CertificationPlan
from acr_ray.certification.pool import SampleRequest
from acr_ray.certification.sampler import Arithmetic, Sampler
from acr_ray.cli.drivers.certification_inputs import CertificationInputs, open_checkpoint, open_inputs
from acr_ray.cli.drivers.int8 import int8_of_run
from acr_ray.cli.drivers.noise import with_fitting_noise
from acr_ray.cli.drivers.one_actor import ask_one_actor
from acr_ray.cli.exits import CommandFailed
from acr_ray.cli.progress import clock
from acr_ray.cli.session import RunOptions
from acr_ray.models import ModelCard
from acr_ray.models.in_process import to_send
from acr_ray.settings import CertifySettings
from acr_ray.settings.imports import ImportChoices
from acr_ray.smoothing.bounds import round_down
from acr_ray.smoothing.plan import Phase
from acr_ray.storage import Folder
from acr_ray.tracking import default_uri

PILOT_IMAGES, PILOT_DRAWS = 100, 200


def plan_certification(
    checkpoint: str,
    options: RunOptions,
    changes: Mapping[str, Any],
    actors: tuple[int, int] | None,
    gpus_per_actor: float,
    choices: ImportChoices,
) -> CertificationPlan:
    """Draw the pilot, measure the rate, and print the table; see `acr_ray.cli.commands.certify.plan`."""
    uri = options.tracking_uri or default_uri(Folder("."))
    device = "cuda" if gpus_per_actor else "cpu"
    subject = open_checkpoint(checkpoint, uri, choices, {"device": device, **changes})
    inputs = open_inputs(subject.card, checkpoint, changes, device)
    inputs = replace(inputs, settings=with_fitting_noise(inputs.settings, "noise" in changes))
    int8 = int8_of_run(subject, inputs.settings, None)
    made = _made(inputs, subject.card, subject.model, int8, actors, gpus_per_actor, options.verbose)
    print(_table(inputs.settings, made), flush=True)
    return made


def _made(
    inputs: CertificationInputs,
    card: ModelCard,
    model: nn.Module,
    int8: bytes | None,
    actors: tuple[int, int] | None,
    gpus_per_actor: float,
    verbose: bool,
) -> CertificationPlan:
    settings, images = inputs.settings, inputs.images
    chosen = choose_pilot(len(images), PILOT_IMAGES)
    # A phase of its own: the run that may follow draws none of this noise.
    phase = Phase("pilot", PILOT_DRAWS, min(PILOT_DRAWS, settings.block))
    requests = [
        SampleRequest((images.names[i],), images.load([i], None).numpy(), phase, 0, phase.blocks) for i in chosen
    ]
    arguments = (card, to_send(card, model), settings.sigma, settings.seed, Arithmetic.of(settings, int8))
    if gpus_per_actor:
        asked = [("draw", (requests,)), ("rates", ([settings.block],))]
        results, (rate,) = ask_one_actor(arguments, asked, gpus_per_actor, "--plan", verbose)
    else:
        with drawing_here():
            sampler = Sampler(*arguments)
            results, rate = sampler.draw(requests), sampler.rates([settings.block])[0]
    if not rate:
        raise CommandFailed(f"--block {settings.block}: does not fit into the GPU's memory; give a smaller --block")
    counts = np.stack([result.counts[0] for result in results])
    made = forecasts(settings, counts, images.labels[chosen], images=len(images))
    most = actors[1] if actors else 1
    return CertificationPlan(len(images), len(chosen), PILOT_DRAWS, rate, most, tuple(made))


def _table(settings: CertifySettings, made: CertificationPlan) -> str:
    radii = [f"r = {r:g}" for r in settings.radii]
    head = ["--stopping", "--certificate", "draws an image", "draws in all", "time", "ACR", *radii]
    lines = [head]
    for one in made.forecasts:
        shares = (f"{100 * a:.0f} ± {200 * e:.0f}" for a, e in zip(one.certified_accuracy, one.errors, strict=True))
        acr = ("≥ " if one.stopping in ("radii", "distribution") else "") + round_down(one.acr, 3)
        in_all = f"{one.draws * made.images:,.0f}"
        told = [one.stopping, one.certificate, f"{one.draws:,.0f}", in_all, clock(made.seconds(one)), acr]
        lines.append([*told, *shares])
    widths = [max(len(line[k]) for line in lines) for k in range(len(head))]
    text = []
    for line in lines:
        cells = enumerate(zip(line, widths, strict=True))
        text.append("  ".join(cell.ljust(width) if k < 2 else cell.rjust(width) for k, (cell, width) in cells))
    actors = f"{made.actors} actor" + "s" * (made.actors > 1)
    return "\n".join(
        [
            f"plan for {made.images:,} images, n0 {settings.n0}, n {settings.n}, alpha {settings.alpha}, sigma "
            f"{settings.sigma}, from {made.pilot_draws} noise draws of {made.pilot_images} images; {made.rate:,.0f} "
            f"draws a second and actor, as measured here; times are for {actors} (--actors K)",
            *text,
            "certified accuracy in percent at each radius, with two standard errors of this forecast; nothing was "
            "written, and the run's own noise is another",
        ]
    )
