"""Read CIFAR's pickles without running what they say: plain values and arrays of whole numbers, nothing else."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from acr_ray.settings import UserError
from acr_ray.settings.documents import read_file

MOST_BYTES = 2**30  # a batch has 30 MB


def read_plain_pickle(path: Path) -> Any:
    """The value in a pickle that holds only dicts, lists, tuples, text, bytes, numbers and integer arrays.

    Nothing named in the file is imported or called: the few names that array pickles need are answered by the
    stand-ins below.

    Raises:
        UserError: the file cannot be read, is not such a pickle, or asks for anything else; names the file.
    """
    try:
        return _PlainUnpickler(io.BytesIO(read_file(path, MOST_BYTES)), encoding="bytes").load()
    except UserError:
        raise
    except _Refused as error:
        raise UserError(f"{path}: the pickle asks for {error}; refused, not run") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None
    except Exception as error:  # a hostile or torn pickle can raise anything: none of it is our own failure
        raise UserError(f"{path}: not a batch in CIFAR-10's format, or damaged ({type(error).__name__})") from None


class _Refused(Exception):
    pass


class _Dtype:
    """Stands in for numpy.dtype."""

    def __init__(self, code: str | bytes, *_: object) -> None:
        self.code, self.order = _text(code), "|"

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = _text(state[1])

    def build(self) -> np.dtype:
        if self.code not in ("u1", "i1", "i2", "i4", "i8"):
            raise _Refused(f"an array of {self.code}")
        return np.dtype((">" if self.order == ">" else "<") + self.code)


class _Array:
    """Stands in for numpy's array under reconstruction; `value` is the array once its state came."""

    value: np.ndarray | None = None

    def __init__(self, *_: object) -> None: ...

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran, content = state
        self.value = _FromBuffer(content, dtype, shape, "F" if fortran else "C")


class _FromBuffer:
    """Stands in for numpy's _frombuffer; a class, for a pickle may set attributes of functions, not of these."""

    # Called as the function that it stands in for, so that no instance is ever made.
    def __new__(  # type: ignore[misc]
        cls, content: bytes, dtype: _Dtype, shape: tuple[int, ...], order: str | bytes
    ) -> np.ndarray:
        return np.frombuffer(content, dtype=dtype.build()).reshape(shape, order="F" if _text(order) == "F" else "C")

    def __setstate__(self, _: object) -> None:
        raise _Refused("a change of _frombuffer")


class _Encode:
    """Stands in for _codecs.encode, by which Python 3 writes bytes in old pickles; a class as above."""

    def __new__(cls, text: str, encoding: str) -> bytes:  # type: ignore[misc]  # as above
        if encoding not in ("latin1", "latin-1"):
            raise _Refused(f"the encoding {encoding}")
        return text.encode("latin1")

    def __setstate__(self, _: object) -> None:
        raise _Refused("a change of encode")


def _text(value: str | bytes) -> str:
    return value.decode("latin1") if isinstance(value, bytes) else value


STAND_INS: dict[tuple[str, str], Any] = {("_codecs", "encode"): _Encode, ("numpy", "dtype"): _Dtype}
STAND_INS[("numpy", "ndarray")] = _Array
for _core in ("numpy.core", "numpy._core"):  # before and since numpy 2
    STAND_INS[(f"{_core}.multiarray", "_reconstruct")] = _Array
    STAND_INS[(f"{_core}.numeric", "_frombuffer")] = _FromBuffer


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return STAND_INS[(module, name)]
        except KeyError:
            raise _Refused(f"{module}.{name}") from None


def as_array(value: Any) -> np.ndarray:
    """An array, or a list of whole numbers, out of such a pickle, as an array. Raises ValueError for others."""
    if isinstance(value, _Array):
        value = value.value
    found = np.asarray(value)
    if found.dtype.kind not in "iu":
        raise ValueError("not whole numbers")
    return found
