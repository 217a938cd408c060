"""The block size by measurement, once, where the samplers will run; then it is the run's."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from acr_ray.cli.exits import CommandFailed
from acr_ray.cli.ray_session import connect
from acr_ray.cli.session import RunOptions
from acr_ray.models import ModelCard, state_bytes
from acr_ray.settings import CertifySettings
from acr_ray.storage import Folder
from acr_ray.storage.run_record import RUN, read_run

PATIENCE = 900  # seconds: on a CPU the largest blocks of a large network take minutes
CANDIDATES = {"cpu": (50, 100, 200, 400, 800), "cuda": (100, 250, 500, 1000, 2000, 4000)}


def with_measured_block(
    settings: CertifySettings, options: RunOptions, out: Folder, card: ModelCard, model: nn.Module, gpus: float
) -> CertifySettings:
    """Put the quickest block into the settings: measured now, or by the run that the folder already holds.

    Args:
        gpus: of one sampler actor.

    Raises:
        CommandFailed: no sampler answered.
    """
    if out.is_file(RUN) and not options.overwrite:
        block = read_run(out)["identity"].get("block")
        return settings.change({"block": block}) if block else settings
    import ray
    from ray.exceptions import GetTimeoutError

    from acr_ray.certification.sampler import Arithmetic
    from acr_ray.certification.sampler_pool import Actors, sampler_class

    connect(options.verbose)
    actors = Actors.fitting((1, 1), gpus)
    arithmetic = replace(Arithmetic.of(settings), rows=CANDIDATES[settings.device])
    sampler = sampler_class(actors).remote(card, state_bytes(model), settings.sigma, settings.seed, arithmetic)
    tried = CANDIDATES[settings.device]
    try:
        rates = dict(zip(tried, ray.get(sampler.rates.remote(tried), timeout=PATIENCE), strict=True))
    except GetTimeoutError as error:
        raise CommandFailed(
            f"--block auto: no sampler has answered for {PATIENCE // 60} minutes; is a node with the resources of one "
            "actor free (ray status)? Or give a number"
        ) from error
    finally:
        ray.kill(sampler)
    best = max(rates, key=rates.__getitem__)
    if not rates[best]:
        raise CommandFailed(
            f"--block auto: not even {min(tried)} rows fit into the GPU's memory; give a smaller --block"
        )
    measured = ", ".join(f"{block}: {rate:,.0f}/s" for block, rate in rates.items())
    print(f"block {best}, by measurement ({measured})", flush=True)
    return settings.change({"block": best})
