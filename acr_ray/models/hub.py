"""Weights from the Hugging Face hub: ``hf://owner/name[@revision][/file]``."""

from __future__ import annotations

import logging
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
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # its retries are told by the line that we end with
    repository, revision, file = found.groups()
    names = (file,) if file else FILES
    for name in names:
        try:
            return str(hf_hub_download(repository, name, revision=revision))
        except Exception as error:  # no network, no such file, no rights: each release has its own classes
            if not _no_such_file(error):
                raise UserError(_told(location, error)) from None
    raise UserError(f"CHECKPOINT {location}: there is no {' and no '.join(names)}")


def _no_such_file(error: Exception) -> bool:
    """Return whether the hub answered that this file is not there: another one may be."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    return "EntryNotFoundError" in kinds and "LocalEntryNotFoundError" not in kinds


def _told(location: str, error: Exception) -> str:
    if type(error).__name__ == "LocalEntryNotFoundError":
        return f"CHECKPOINT {location}: the hub cannot be reached, and its cache on this machine does not hold it"
    return f"CHECKPOINT {location}: cannot be fetched ({type(error).__name__}: {' '.join(str(error).split())[:200]})"


def fetch_folder(location: str) -> str | None:
    """Download a folder that `jobs.export` made. Returns its local path; None if the location names no such folder.

    Raises:
        UserError: the hub cannot be reached.
    """
    found = NAME.fullmatch(location)
    if found is None or found[3]:
        return None
    try:
        from huggingface_hub import hf_hub_download

        logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
        card = hf_hub_download(found[1], MODEL_CARD, revision=found[2])
        hf_hub_download(found[1], MODEL_WEIGHTS, revision=found[2])
    except Exception as error:
        # An outage is said at once, not after waiting for it again; what else is wrong, if anything, says `fetch`.
        if type(error).__name__ == "LocalEntryNotFoundError":
            raise UserError(_told(location, error)) from None
        return None
    return str(card).rpartition("/")[0]
