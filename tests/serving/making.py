"""A service of the untrained digits network, and the slow and plain way to the same answers."""

from __future__ import annotations

import io
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import torch
from PIL import Image

from acr_ray.data import open_images
from acr_ray.models import load_checkpoint
from acr_ray.serving.seeds import Secret
from acr_ray.serving.service import Service
from acr_ray.settings.serve import ServeSettings
from acr_ray.smoothing.arithmetic import prepare
from acr_ray.smoothing.bounds import radius, round_down
from acr_ray.smoothing.classifier import SmoothedClassifier
from acr_ray.smoothing.engine import SamplingEngine
from acr_ray.smoothing.lattice_law import alpha_left, levels_for, noise_share
from acr_ray.smoothing.plan import ESTIMATE, SELECT, Phase
from acr_ray.smoothing.stopping import rule_for
from tests.fakes.models import write_digits_checkpoint

SECRET = Secret(b"a secret of the tests")
SIGMA, GRID = 0.25, 16


@cache
def checkpoint() -> str:
    return str(write_digits_checkpoint(Path(mkdtemp()), sharper=3.0))


def digits(count: int) -> list[np.ndarray]:
    return list(open_images("digits", None, "test").load(range(count), None).numpy())


def png(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray((image[0] * 255).round().astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


def service(**settings) -> Service:
    torch.set_num_threads(1)
    made = Service(ServeSettings(**({"max_draws": 2000, "queue": 64, "chunk": 50} | settings)), SECRET)
    made.use(*load_checkpoint(checkpoint()), {"name": "digits"})
    return made


def engine(model) -> SamplingEngine:
    """The engine of lattice noise, as the service has it."""
    return SamplingEngine(prepare(model), 10, SIGMA, "cpu", levels_for(SIGMA, GRID))


def plain_certificate(
    image, kind: str, settings: ServeSettings, radii, alpha: float, most: int | None = None, folder=None, secret=SECRET
) -> dict:
    """What `CertifyQuestion` must answer: the engine draws each look anew, from the start, for this image alone."""
    model, card = load_checkpoint(folder or checkpoint())
    key = secret.key([card.sha256, repr(SIGMA), kind], image)
    smoothed = SmoothedClassifier(
        model, card.num_classes, SIGMA, block=settings.chunk, noise=settings.noise, grid=GRID, dtype=settings.dtype
    )
    select = smoothed.counts(torch.from_numpy(image), Phase(SELECT, settings.n0, settings.chunk), key)
    selected = int(np.argmax(select))
    share = (
        noise_share(SIGMA, smoothed.law.levels, image.size, settings.n0 + settings.max_draws) if smoothed.law else 0.0
    )
    rule = rule_for(settings.rule(SIGMA, alpha_left(alpha, share), radii))
    path, claim, reason = [], 0.0, "max_draws"
    for look in rule.looks:
        if look > (most or settings.max_draws):
            break
        counts = smoothed.counts(torch.from_numpy(image), Phase(ESTIMATE, look, settings.chunk), key)
        path.append(int(counts[selected]))
        judged = rule.judge(path, settings.n0, int(select[selected]))
        # What the rule would claim if this look were its last: the largest threshold that was ever reached.
        reached = (np.array(path)[:, None] >= rule.boundaries[: len(path)]).any(axis=0).sum()
        claim = [0.0, *rule.thresholds][reached]
        if judged.stop:
            reason = judged.reason
            assert claim == judged.p_lower
            break
    return {
        "selected": selected,
        "class": selected if claim > 0.5 else None,
        "radius": float(round_down(float(radius(claim, SIGMA)), 6)) if claim > 0.5 else 0.0,
        "n": rule.looks[len(path) - 1],
        "count": path[-1],
        "reason": reason,
    }
