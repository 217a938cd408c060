"""Weights in files that other code wrote: tensors and plain values are read, nothing in a file is ever run."""

from __future__ import annotations

import io
import re
import warnings
import zipfile
from dataclasses import dataclass
from pickle import UnpicklingError
from typing import Any

import torch

from acr_ray.models.hub import fetch, is_hub
from acr_ray.models.state import read_tensors
from acr_ray.settings import UserError
from acr_ray.storage import Folder

#: Endings of the files that `read_foreign` takes; `.pth.tar` ends in one of them.
PICKLE_ENDINGS = (".pt", ".pth", ".tar", ".ckpt", ".bin")
ENDINGS = (".safetensors", *PICKLE_ENDINGS)
MOST_BYTES = 8 * 2**30  # of a file: weights, averaged weights and an optimizer's state of a model of 2 GB
ADVICE = "save the weights alone in the code that made it: torch.save(model.state_dict(), 'weights.pth')"


class Ignored:
    """What stands for a NumPy scalar or an ``argparse.Namespace`` in a file: keeps plain values, runs nothing.

    The field's checkpoints hold such objects beside the weights (best accuracy, options). NumPy's own reconstruction
    is not allowed, for `dtype.__setstate__` takes whatever a file says; neither code is reached.
    """

    def __init__(self, *_: Any) -> None:
        self.values: dict[str, Any] = {}

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, dict):
            self.values = state


#: By the names that pickles give them; each is answered by `Ignored`.
STAND_INS = (
    "argparse.Namespace",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar",
    "numpy.dtype",
    *(f"numpy.dtypes.{kind}DType" for kind in ("Float64", "Float32", "Float16", "Int64", "Int32", "Bool")),
)


def is_foreign(location: str) -> bool:
    """Return whether a CHECKPOINT is a file of weights, or one of a hub, and not a folder of ours."""
    if is_hub(location):
        return True
    if location.startswith(("runs:/", "models:/")) or not location.lower().endswith(ENDINGS):
        return False
    try:
        return not Folder(location, option="CHECKPOINT").names()  # a folder may be called mine.pt, too
    except OSError:
        return True


@dataclass(frozen=True)
class ForeignFile:
    """What a file holds.

    Attributes:
        source: the file, for messages.
        content: tensors and plain values, in dictionaries and lists; `Ignored` for what stands for no plain value.
    """

    source: str
    content: Any


def read_foreign(location: str, most: int = MOST_BYTES) -> ForeignFile:
    """Read a file of weights.

    Args:
        location: a path or URI of a ``.safetensors`` file, or of one that ``torch.save`` wrote; or
            ``hf://owner/name[/file]``.
        most: bytes that the file may have.

    Raises:
        UserError: it is missing, damaged, too large, or holds anything but tensors and plain values.
    """
    source = f"CHECKPOINT {location[:300]}"
    path = fetch(location) if is_hub(location) else location
    parent, _, name = path.rstrip("/").rpartition("/")
    try:
        content = Folder(parent or ("/" if path.startswith("/") else "."), option="CHECKPOINT").read_bytes(name, most)
    except OSError as error:
        raise UserError(f"{source}: cannot be read ({error})") from None
    if not content:
        raise UserError(f"{source}: is empty")
    if content[8:9] == b"{":
        return ForeignFile(source, read_tensors(content, source))
    if name.lower().endswith(".safetensors"):
        return ForeignFile(source, read_tensors(content, source))  # which says what it is instead
    return ForeignFile(source, _unpickled(content, source))


def _unpickled(content: bytes, source: str) -> Any:
    if content.startswith(b"PK"):
        _check_archive(content, source)
    allowed: list[Any] = [(Ignored, name) for name in STAND_INS]
    try:
        with torch.serialization.safe_globals(allowed), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on pickle protocols; what cannot be read is said below
            found = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise UserError(f"{source}: {_refusal(str(error))}") from None
    except Exception as error:  # a file that is not what it should be fails in any of a dozen ways
        text = " ".join(str(error).split())
        if ".tar" in text and "weights_only" in text:
            raise UserError(f"{source}: is in the tar format of PyTorch before 0.1.10; refused; {ADVICE}") from None
        shown = f"{type(error).__name__}: {text[:120]}"
        raise UserError(f"{source}: truncated, damaged, or no file of torch.save ({shown})") from None
    _check_storages(found, len(content), source)
    return found


def _refusal(text: str) -> str:
    name = re.search(r"GLOBAL ([\w.]+)", text)
    what = (
        f"is a pickle that holds {name[1]}"
        if name
        else "is a pickle that holds more than tensors and plain values, or is damaged"
    )
    return f"{what}; refused, not run (allowed: tensors and plain values); {ADVICE}"


def _check_archive(content: bytes, source: str) -> None:
    """torch.save compresses nothing; what is compressed could fill the memory."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError, OSError) as error:
        raise UserError(f"{source}: truncated or damaged ({error})") from None
    if any("/code/" in entry.filename for entry in entries):
        raise UserError(f"{source}: holds a TorchScript program; refused, not run; {ADVICE}")
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries) or (
        sum(entry.file_size for entry in entries) > len(content)
    ):
        raise UserError(f"{source}: is a compressed archive, not a file of torch.save; refused")


def _check_storages(value: Any, most: int, source: str, level: int = 0) -> None:
    """A tensor that claims more numbers than the file has would be memory that nobody wrote."""
    if level > 20:
        raise UserError(f"{source}: nested too deep")
    if isinstance(value, torch.Tensor):
        if value.layout != torch.strided or value.is_quantized or value.untyped_storage().nbytes() > most:
            raise UserError(f"{source}: holds a tensor that is no plain one, or larger than the file")
    elif isinstance(value, dict):
        for inner in value.values():
            _check_storages(inner, most, source, level + 1)
