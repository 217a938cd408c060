"""What certificates say of their noise, and the alpha that it leaves for their bounds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from acr_ray.settings.errors import UserError
from acr_ray.smoothing.lattice_law import alpha_left
from acr_ray.smoothing.run_noise import FLOAT, SOUND

#: Columns of certificates; files of before lattice noise lack them.
NOISE_COLUMNS = {"noise": "text", "step": "text", "grade": "text", "noise_alpha": "number"}


@dataclass(frozen=True)
class SourceNoise:
    """The noise behind a source.

    Attributes:
        left: what its rounding leaves of alpha: the bounds are at this.
        share: what it takes.
        name, step: as certificates have them; "" if the source does not say.
        grade: ``sound`` or ``float``; sources that do not say are ``float``.
    """

    left: float
    share: float = 0.0
    name: str = ""
    step: str = ""
    grade: str = FLOAT


def noise_of(table: pa.Table, where: str, alpha: float) -> SourceNoise:
    """Return what a certificates file says of its noise. Raises UserError if its rows differ, or a value is wrong."""
    said = {column: table[column] for column in NOISE_COLUMNS if column in table.column_names}
    texts = {}
    for column in ("noise", "step", "grade"):
        values = pc.unique(said[column]).to_pylist() if column in said else [""]
        if len(values) > 1:
            raise UserError(f"{where}: {column} differs between rows; one source has one")
        texts[column] = str(values[0] or "")
    if texts["grade"] not in ("", SOUND, FLOAT):
        raise UserError(f"{where}: grade is {texts['grade'][:40]}; allowed: {SOUND}, {FLOAT}")
    share = float(np.max(said["noise_alpha"].to_numpy())) if "noise_alpha" in said else 0.0
    if not 0 <= share < alpha:
        raise UserError(f"{where}: noise_alpha is {share:g}, must lie in [0, alpha)")
    return SourceNoise(alpha_left(alpha, share), share, texts["noise"], texts["step"], texts["grade"] or FLOAT)
