"""Networks by name, normalisation inside, and checkpoints that cannot run anything."""

from acr_ray.models.building import Normalize, architectures, build_model
from acr_ray.models.checkpoint import ModelCard, check_readable, load_checkpoint, read_card, save_checkpoint
from acr_ray.models.state import load_state, state_bytes

__all__ = [
    "ModelCard",
    "Normalize",
    "architectures",
    "build_model",
    "check_readable",
    "load_checkpoint",
    "load_state",
    "read_card",
    "save_checkpoint",
    "state_bytes",
]
