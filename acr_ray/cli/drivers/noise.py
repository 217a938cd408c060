"""Which noise a certification draws, in which passes, and what that does to its images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from acr_ray.cli.session import RunOptions
from acr_ray.data import ImageSet
from acr_ray.settings import CertifySettings, UserError
from acr_ray.smoothing.noise import off_grid
from acr_ray.smoothing.run_noise import law_of, levels_of, pass_rows
from acr_ray.storage import Folder
from acr_ray.storage.run_record import RUN, read_run

PORTION = 64  # images looked at together


def with_noise_of_run(changes: Mapping[str, Any], options: RunOptions, out: Folder) -> dict[str, Any]:
    """Keep the noise that the run in the folder has begun with, if the user names none; says so if it is float.

    Args:
        changes: fields of `CertifySettings` that the user gave.
    """
    given = dict(changes)
    if "noise" in given or options.overwrite or not out.is_file(RUN):
        return given
    record = read_run(out)
    if record["job"] != "certify" or "noise" in record["identity"]:
        return given
    print("the run in this folder has begun with float noise, and goes on with it (--noise float)", flush=True)
    return {**given, "noise": "float"}


def with_fitting_noise(settings: CertifySettings, chosen: bool) -> CertifySettings:
    """Return the settings with noise that fits; float noise, and a line, where lattice noise does not.

    Args:
        chosen: whether the user asked for lattice noise.

    Raises:
        UserError: the user asked for it, and it does not fit 16 bits.
    """
    try:
        law_of(settings)
        return settings
    except UserError as error:
        if chosen:
            raise
        print(f"float noise: {str(error).removeprefix('--noise lattice: ')}", flush=True)
        return settings.change({"noise": "float", "grid": None}, "certify")


def with_shared_passes(
    settings: CertifySettings, changes: Mapping[str, Any], options: RunOptions, out: Folder
) -> CertifySettings:
    """Let images share passes of one shape where a stopping rule asks for few draws at a time.

    A run that the folder holds keeps what it has begun with; float noise comes in blocks of one image.

    Args:
        changes: fields that the user gave; ``pass_rows`` among them decides.
    """
    if "pass_rows" in changes or settings.noise == "float":
        return settings
    if out.is_file(RUN) and not options.overwrite:
        record = read_run(out)
        rows = record["identity"].get("pass_rows") if record["job"] == "certify" else None
    else:
        rows = None if settings.stopping == "fixed" else pass_rows(settings)
    return settings.change({"pass_rows": rows}, "certify")


def rounded_images(settings: CertifySettings, images: ImageSet) -> dict[str, Any] | None:
    """Find the images that lattice noise rounds to its grid; says how many and how far.

    Returns:
        ``{"images": K, "farthest": l2 distance in input units}``; None for float noise.
    """
    levels = levels_of(settings)
    if levels is None:
        return None
    count, farthest = 0, 0.0
    if images.peak == 1:  # others are whole steps
        for at in range(0, len(images), PORTION):
            portion = np.arange(at, min(at + PORTION, len(images)))
            distances = off_grid(images.load(portion, None), levels)
            count += int(torch.count_nonzero(distances))
            farthest = max(farthest, float(distances.max()))
    if count:
        print(
            f"{count} of {len(images)} images do not lie on the grid 1/{levels} and are rounded to it, by up to "
            f"{farthest:.2g} (l2); what is certified is the rounded image",
            flush=True,
        )
    return {"images": count, "farthest": farthest}
