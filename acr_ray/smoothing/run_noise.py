"""What a certification run's settings say of its noise: law, names, grade, and the part of alpha that it takes."""

from __future__ import annotations

from dataclasses import dataclass, replace

from acr_ray.settings import CertifySettings, UserError
from acr_ray.smoothing.lattice_law import LatticeLaw, alpha_left, levels_for, noise_share

LATTICE, PCG64, PHILOX_CUDA = "lattice/1", "pcg64/1", "philox-cuda/1"  # names of noise, with a version
SOUND, FLOAT = "sound", "float"  # grades of certificates; docs/noise.md says what they promise
MOST_ROWS_ON_CPU = 100  # of a pass that images share
USUAL_GRID = 255  # of 8-bit images, and of all that do not say another


@dataclass(frozen=True)
class NoiseFacts:
    """What a certificate says of its noise.

    Attributes:
        name: with a version: ``lattice/1``, ``pcg64/1`` or ``philox-cuda/1``.
        step: of the grid in input units, as text (``1/255``); "" for float noise.
        grade: ``sound`` or ``float``.
        share: the part of alpha that the rounding of the noise's law takes; 0 for float noise.
    """

    name: str
    step: str
    grade: str
    share: float


def law_of(settings: CertifySettings) -> LatticeLaw | None:
    """Return the law of a run's lattice noise; None for float noise. Raises UserError if it does not fit 16 bits."""
    if settings.noise == "float":
        return None
    try:
        return LatticeLaw(settings.sigma, levels_for(settings.sigma, settings.grid or USUAL_GRID))
    except ValueError as error:
        raise UserError(f"--noise lattice: {error}") from None


def levels_of(settings: CertifySettings) -> int | None:
    """Return the steps in a unit of a run's lattice noise; None for float noise."""
    law = law_of(settings)
    return None if law is None else law.levels


def pass_rows(settings: CertifySettings) -> int:
    """Return how many rows a pass that images share has in a new run: on a GPU a block, on a CPU 100 at most.

    A pass costs the same if nobody needs its last rows. A CPU is about as fast with few rows, a GPU is not.
    """
    return settings.block if settings.device == "cuda" else min(settings.block, MOST_ROWS_ON_CPU)


def facts_of(settings: CertifySettings, coordinates: int, draws: int | None = None) -> NoiseFacts:
    """Return what the certificates of a run say of their noise.

    Args:
        coordinates: numbers in an image, ``C H W``.
        draws: estimation draws of an image, at most; None: the settings' n.
    """
    facts = noise_facts(law_of(settings), settings.device, coordinates, settings.n0 + (draws or settings.n))
    # Without shared passes the looks of the other rules have forward passes of several shapes, in which one network is
    # several classifiers. Without the images' size nothing is known of what the noise takes of alpha.
    one_shape = (settings.stopping == "fixed" or settings.pass_rows is not None) and coordinates > 0
    return facts if one_shape else replace(facts, grade=FLOAT)


def noise_facts(law: LatticeLaw | None, device: str, coordinates: int, draws: int) -> NoiseFacts:
    """Return the facts of a law's noise; ``draws`` are all of an image, those of its selection included."""
    if law is None:
        return NoiseFacts(PHILOX_CUDA if device.startswith("cuda") else PCG64, "", FLOAT, 0.0)
    return NoiseFacts(LATTICE, law.step, SOUND, noise_share(law.sigma, law.levels, coordinates, draws))


def judged_by(settings: CertifySettings, facts: NoiseFacts) -> CertifySettings:
    """Return the settings with which the bounds of a run are computed: alpha is what the noise leaves of it.

    Raises:
        UserError: it leaves nothing, or too little for n.
    """
    if not facts.share:
        return settings
    try:
        left = alpha_left(settings.alpha, facts.share)
    except ValueError as error:
        raise UserError(str(error)) from None
    return settings.change({"alpha": left}, "certify")
