"""A checkpoint as an MLflow model: code by name and safetensors, nothing that is unpickled."""

from __future__ import annotations

import re
import warnings
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import mlflow
import numpy as np
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema, TensorSpec

from acr_ray.formats.files import CHECKPOINT
from acr_ray.models import ModelCard, read_card
from acr_ray.storage import Folder
from acr_ray.tracking.own_wheel import pinned, write_wheel


def log_smoothed_model(uri: str, run_id: str, checkpoint: Folder, files: tuple[str, ...]) -> str:
    """Log ``checkpoint`` as the model of a run; it predicts through `smoothed_model.SmoothedModel`.

    Its name is the recipe's. Beside the weights lies this package as a wheel, so that its requirements can be installed
    where no index has it; where it is installed, that one is used. Returns the logged model's id.
    """
    with ExitStack() as stack:
        temporary = Path(stack.enter_context(TemporaryDirectory()))
        folder, wheel = temporary / CHECKPOINT, write_wheel(temporary)
        folder.mkdir()
        for name in files:
            (folder / name).write_bytes(checkpoint.read_bytes(name))
        card = read_card(str(folder))
        signature = ModelSignature(
            inputs=Schema([TensorSpec(np.dtype(np.float32), (-1, *card.shape))]),
            outputs=Schema(
                [ColSpec("long", "predicted"), ColSpec("boolean", "abstained"), ColSpec("double", "radius")]
            ),
            params=ParamSchema(
                [
                    ParamSpec("n0", "long", 100),
                    ParamSpec("n", "long", 1000),
                    ParamSpec("alpha", "double", 0.001),
                    ParamSpec("seed", "long", 0),
                ]
            ),
        )
        mlflow.set_tracking_uri(uri)
        with mlflow.start_run(run_id=run_id), warnings.catch_warnings():
            # The signature is given; MLflow would rather guess it from an example image.
            warnings.simplefilter("ignore", UserWarning)
            info = mlflow.pyfunc.log_model(
                name=model_name(card),
                loader_module="acr_ray.tracking.smoothed_model",
                data_path=str(folder),
                signature=signature,
                # With few draws, for MLflow asks the model for it.
                input_example=(np.full((1, *card.shape), 0.5, dtype=np.float32), {"n0": 10, "n": 20}),
                # MLflow would guess the packages by running the model.
                pip_requirements=[f"code/{wheel.name}", *pinned()],
                code_paths=[str(wheel)],
                metadata={"model_sha256": card.sha256, "sigma": card.sigma},
                params=_params(card),
            )
    return info.model_id


def _params(card: ModelCard) -> dict[str, str]:
    """What MLflow's page of the model shows; of a model that is certified at another sigma the run says it."""
    recipe = str((card.recipe or {}).get("name") or "")
    return {
        "sigma": str(card.sigma),
        "dataset": card.dataset,
        "recipe": recipe,
        "architecture": card.architecture,
        "model_sha256": card.sha256,
    }


def model_name(card: ModelCard) -> str:
    """What the logged model is called: the recipe, else the architecture; MLflow takes no ``/ : . % ' "`` there."""
    name = str((card.recipe or {}).get("name") or card.architecture)
    return re.sub(r"[^\w\- ]", "_", name)[:200] or "model"
