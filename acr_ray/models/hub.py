"""Weights from the Hugging Face hub: ``hf://owner/name[@revision][/file]``."""

from __future__ import annotations

import re

from acr_ray.formats.files import MODEL_CARD, MODEL_WEIGHTS
from acr_ray.settings import UserError

START = "hf://"
#: What is looked for if no file is named, in this order.
FILES = ("model.safetensors", "pytorch_model.bin")
NAME = re.compile(r"hf://([\w.-]+/[\w.-]+?)(?:@([\w./-]+?))?(?:/([\w./-]+))?")


def is_hub(location: str) -> bool:
    """Return whether a location is one of the hub."""
    return location.startswith(START)


def fetch(location: str) -> str:
    """Download a file of weights, or take it from the hub's cache. Returns its local path.

    Args:
        location: ``hf://owner/name``, with ``@revision`` and ``/file`` if wanted.

    Raises:
        UserError: huggingface_hub is not installed, the network does not allow it, or there is no such file.
    """
    found = NAME.fullmatch(location)
    if found is None or ".." in location:
        raise UserError(f"CHECKPOINT {location[:200]}: allowed: hf://owner/name[@revision][/file]")
    try:
        from huggingface_hub import hf_hub_download
    except ImportError:
        raise UserError(f"CHECKPOINT {location}: needs huggingface_hub: pip install 'acr-ray[hub]'") from None
    repository, revision, file = found.groups()
    reasons = []
    for name in [file] if file else FILES:
        try:
            return str(hf_hub_download(repository, name, revision=revision))
        except Exception as error:  # no network, no such file, no rights: each release has its own classes
            reasons.append(f"{name}: {type(error).__name__}: {' '.join(str(error).split())[:120]}")
    raise UserError(f"CHECKPOINT {location}: cannot be fetched ({'; '.join(reasons)})")


def fetch_folder(location: str) -> str | None:
    """Download a folder that `jobs.export` made. Returns its local path; None if the location names no such folder."""
    found = NAME.fullmatch(location)
    if found is None or found[3]:
        return None
    try:
        from huggingface_hub import hf_hub_download

        card = hf_hub_download(found[1], MODEL_CARD, revision=found[2])
        hf_hub_download(found[1], MODEL_WEIGHTS, revision=found[2])
    except Exception:  # what is wrong, if anything, is said by `fetch`
        return None
    return str(card).rpartition("/")[0]
