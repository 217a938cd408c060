"""Run by MLflow when it loads a logged model (models from code)."""

from __future__ import annotations

from typing import Any

import mlflow
import numpy as np
import pandas as pd
import torch

from acr_ray.models import load_checkpoint
from acr_ray.smoothing.bounds import round_down
from acr_ray.smoothing.classifier import SmoothedClassifier


class _Smoothed:
    """The smoothed classifier: images ``(B, C, H, W)`` float32 in [0, 1] to ``predicted, abstained, radius``.

    Each row is a certificate, wrong with probability at most ``alpha``; ``predicted`` is -1 where it abstains. Params
    of ``predict``: ``n0`` (100), ``n`` (1000), ``alpha`` (0.001), ``seed`` (0).
    """

    def load_context(self, context: Any) -> None:
        self.model, self.card = load_checkpoint(context.artifacts["checkpoint"])

    def predict(self, context, model_input, params=None):
        options = {"n0": 100, "n": 1000, "alpha": 0.001, "seed": 0} | (params or {})
        images = torch.as_tensor(np.asarray(model_input, dtype=np.float32))
        smoothed = SmoothedClassifier(self.model, self.card.num_classes, self.card.sigma, seed=int(options["seed"]))
        rows = []
        for number, image in enumerate(images):
            found = smoothed.certify(
                image,
                n0=int(options["n0"]),
                n=int(options["n"]),
                alpha=float(options["alpha"]),
                name=f"request/{number}",
            )
            radius = float(round_down(found.radius, 6))
            rows.append((-1 if found.abstained else found.predicted, found.abstained, radius))
        return pd.DataFrame(rows, columns=["predicted", "abstained", "radius"])


class SmoothedModel(_Smoothed, mlflow.pyfunc.PythonModel):
    """What MLflow loads. Where ``predict`` stands in this class itself, MLflow asks the user for type hints, out of
    which it would read an interface of single rows."""


mlflow.models.set_model(SmoothedModel())
