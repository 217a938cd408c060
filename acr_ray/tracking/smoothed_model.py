"""What MLflow calls, by this module's name, when it loads a logged model.

By name, not as code beside the weights: importing a file from a run's folder leaves its compiled form there.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException

from acr_ray.models import load_checkpoint
from acr_ray.settings.datasets import grid_of
from acr_ray.smoothing.bounds import round_down
from acr_ray.smoothing.classifier import SmoothedClassifier
from acr_ray.smoothing.pixels import checked_image


class SmoothedModel:
    """The smoothed classifier: images ``(B, C, H, W)`` float32 in [0, 1] to ``predicted, abstained, radius``.

    What is no such batch is refused whole, with the row's number (a server answers 400): nothing of it is certified.

    Each row is a certificate, wrong with probability at most ``alpha``; ``predicted`` is -1 if it abstains. Params
    of ``predict``: ``n0`` (100), ``n`` (1000), ``alpha`` (0.001), ``seed`` (0).
    """

    def __init__(self, checkpoint: str) -> None:
        self.model, self.card = load_checkpoint(checkpoint)

    def predict(self, model_input: Any, params: dict[str, Any] | None = None) -> pd.DataFrame:
        options = {"n0": 100, "n": 1000, "alpha": 0.001, "seed": 0} | (params or {})
        try:
            return self._certified(model_input, options)
        except (TypeError, ValueError) as error:
            raise MlflowException.invalid_parameter_value(str(error)) from error

    def _certified(self, model_input: Any, options: dict[str, Any]) -> pd.DataFrame:
        given, shape = np.asarray(model_input), tuple(self.card.shape)
        if given.ndim != 4:
            raise ValueError(f"images: have shape {given.shape}; give a batch (B, C, H, W) with (C, H, W) = {shape}")
        images = [checked_image(image, shape, f"image {number}") for number, image in enumerate(given)]
        if self.card.sigma is None:
            raise ValueError("the model's sigma is not known, so nothing can be certified")
        smoothed = SmoothedClassifier(
            self.model,
            self.card.num_classes,
            self.card.sigma,
            seed=int(options["seed"]),
            shape=shape,
            grid=grid_of(self.card.dataset),
        )
        rows = []
        for number, image in enumerate(images):
            certificate = smoothed.certify(
                image,
                n0=int(options["n0"]),
                n=int(options["n"]),
                alpha=float(options["alpha"]),
                name=f"request/{number}",
            )
            radius = float(round_down(certificate.radius, 6))
            rows.append((-1 if certificate.abstained else certificate.predicted, certificate.abstained, radius))
        return pd.DataFrame(rows, columns=["predicted", "abstained", "radius"])


def _load_pyfunc(path: str) -> SmoothedModel:
    """MLflow's hook: the model whose checkpoint lies at ``path``."""
    return SmoothedModel(path)
