"""The block size, once, where the samplers will run: by measurement, or as it fits. Then it is the run's."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from acr_ray.certification.local_pool import drawing_here
from acr_ray.certification.sampler import Arithmetic, Sampler
from acr_ray.cli.drivers.one_actor import ask_one_actor
from acr_ray.cli.drivers.samplers import Samplers
from acr_ray.cli.exits import CommandFailed
from acr_ray.cli.session import RunOptions
from acr_ray.models import ModelCard
from acr_ray.models.in_process import to_send
from acr_ray.settings import CertifySettings
from acr_ray.storage import Folder
from acr_ray.storage.run_record import RUN, read_run

CANDIDATES = {"cpu": (50, 100, 200, 400, 800), "cuda": (100, 250, 500, 1000, 2000, 4000)}


def with_measured_block(
    settings: CertifySettings,
    options: RunOptions,
    out: Folder,
    card: ModelCard,
    model: nn.Module,
    gpus: float,
    int8: bytes | None = None,
) -> CertifySettings:
    """Put the quickest block into the settings: measured now, or by the run that the folder already holds.

    Args:
        gpus: of one sampler actor.
        int8: the run's int8 network; None: it has none.

    Raises:
        CommandFailed: no sampler answered.
    """
    if out.is_file(RUN) and not options.overwrite:
        block = read_run(out)["identity"].get("block")
        return settings.change({"block": block}) if block else settings
    tried = CANDIDATES[settings.device]
    arithmetic = replace(Arithmetic.of(settings, int8), rows=tried)
    arguments = (card, to_send(card, model), settings.sigma, settings.seed, arithmetic)
    # One by one, the smallest first: a block that is too much takes the others' figures with it otherwise.
    questions = [("rates", ((block,),)) for block in tried]
    measured = ask_one_actor(arguments, questions, gpus, "--block auto", options.verbose, partly=True)
    rates = dict.fromkeys(tried, 0.0) | dict(zip(tried, (rate for (rate,) in measured), strict=False))
    best = max(rates, key=rates.__getitem__)
    if not rates[best]:
        raise CommandFailed(f"--block auto: not even {min(tried)} rows fit into the memory; give a smaller --block")
    told = ", ".join(f"{block}: {rate:,.0f}/s" if rate else f"{block}: does not fit" for block, rate in rates.items())
    print(f"block {best}, by measurement ({told})", flush=True)
    return settings.change({"block": best})


def with_fitting_block(
    settings: CertifySettings,
    options: RunOptions,
    out: Folder,
    card: ModelCard,
    model: nn.Module,
    samplers: Samplers,
) -> CertifySettings:
    """Halve the block until a pass fits into a GPU's memory, before it becomes a part of what the run is.

    A run that the folder already holds keeps the block that was found for it.

    Raises:
        CommandFailed: no sampler answered, or not even one row fits.
    """
    if settings.device == "cpu":  # which has no limit of its own to run into
        return settings
    if out.is_file(RUN) and not options.overwrite:
        record = read_run(out)
        block = record["identity"].get("block")
        return settings.change({"block": block}) if block and record.get("block_asked") == settings.block else settings
    # Uncompiled, which needs no less memory and starts at once.
    arithmetic = replace(Arithmetic.of(settings), compiled=False)
    arguments = (card, to_send(card, model), settings.sigma, settings.seed, arithmetic)
    option = f"--block {settings.block}"
    if samplers.on_ray:
        (fits,) = ask_one_actor(
            arguments, [("fitting_block", (settings.block,))], samplers.gpus, option, options.verbose
        )
    else:
        with drawing_here():
            fits = Sampler(*arguments).fitting_block(settings.block)
    if not fits:
        raise CommandFailed(f"{option}: not even one row fits into the GPU's memory")
    if fits < settings.block:
        print(f"block {settings.block} does not fit into the GPU's memory; halved to {fits}", flush=True)
    return settings.change({"block": fits})
