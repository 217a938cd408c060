"""The block size by measurement, once, where the samplers will run; then it is the run's."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from acr_ray.cli.drivers.one_actor import ask_one_actor
from acr_ray.cli.exits import CommandFailed
from acr_ray.cli.session import RunOptions
from acr_ray.models import ModelCard, state_bytes
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
    from acr_ray.certification.sampler import Arithmetic

    tried = CANDIDATES[settings.device]
    arithmetic = replace(Arithmetic.of(settings, int8), rows=tried)
    arguments = (card, state_bytes(model), settings.sigma, settings.seed, arithmetic)
    (measured,) = ask_one_actor(arguments, [("rates", (tried,))], gpus, "--block auto", options.verbose)
    rates = dict(zip(tried, measured, strict=True))
    best = max(rates, key=rates.__getitem__)
    if not rates[best]:
        raise CommandFailed(
            f"--block auto: not even {min(tried)} rows fit into the GPU's memory; give a smaller --block"
        )
    told = ", ".join(f"{block}: {rate:,.0f}/s" for block, rate in rates.items())
    print(f"block {best}, by measurement ({told})", flush=True)
    return settings.change({"block": best})
