"""From what a client sends to an image as the network takes it: float32 ``(C, H, W)`` in [0, 1]. Never a pickle."""

from __future__ import annotations

import base64
import binascii
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from acr_ray.data.decoding import decoded_image
from acr_ray.serving.errors import Refused
from acr_ray.settings import UserError
from acr_ray.smoothing.pixels import checked_image

KINDS = ("PNG", "JPEG")
MOST_HEADER = 4096  # bytes before the numbers of an array


class Pictures:
    """Reads images for one model.

    Args:
        shape: (C, H, W) that it takes; every other one is refused, for a certificate of a resized image would say
            nothing of the one that was sent.
        pixels: of an image file, at most.
    """

    def __init__(self, shape: tuple[int, int, int], pixels: int) -> None:
        self._shape, self._pixels = shape, pixels

    def decoded(self, content: bytes, name: str) -> NDArray[np.float32]:
        """Decode a PNG or JPEG by the rules of `acr_ray.data.decoding`; grey if the model has one channel.

        Raises:
            Refused: 413 if it has too many pixels, else 422.
        """
        channels, height, width = self._shape
        if channels not in (1, 3):
            raise Refused(422, f"{name}: the model takes {channels} channels, which no image file holds; send an array")
        try:
            with Image.open(BytesIO(content), formats=KINDS) as image:
                size = image.size  # of its first bytes: nothing is decoded yet
        except Exception:  # a damaged file can raise nearly anything from a decoder
            raise Refused(422, f"{name}: is no PNG or JPEG that can be read") from None
        if size[0] * size[1] > self._pixels:
            raise Refused(413, f"{name}: has {size[0]} x {size[1]} pixels; allowed: {self._pixels} in all")
        try:
            upright = decoded_image(content, name)
        except UserError as error:
            raise Refused(422, str(error)) from None
        if upright.size != (width, height):
            raise Refused(
                422, f"{name}: has {upright.width} x {upright.height} pixels, the model takes {width} x {height}"
            )
        pixels = np.asarray(upright.convert("L") if channels == 1 else upright)
        pixels = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
        return pixels.astype(np.float32) / np.float32(255)

    def from_json(self, value: Any, name: str) -> NDArray[np.float32]:
        """Read ``{"base64": TEXT}``, an image file, or ``{"array": NUMBERS}``, nested lists (C, H, W).

        Raises:
            Refused: 413 or 422.
        """
        if not isinstance(value, dict) or len(value) != 1 or next(iter(value)) not in ("base64", "array"):
            raise Refused(422, f'{name}: must be {{"base64": TEXT}} or {{"array": NUMBERS}}')
        ((kind, found),) = value.items()
        if kind == "array":
            return self.checked(self._array(found, name), name)
        if not isinstance(found, str):
            raise Refused(422, f"{name}.base64: must be text")
        try:
            content = base64.b64decode(found, validate=True)
        except (binascii.Error, ValueError):
            raise Refused(422, f"{name}.base64: is no base64") from None
        return self.decoded(content, name)

    def from_npy(self, body: bytes, most: int) -> list[NDArray[np.float32]]:
        """Read NumPy's array file: (C, H, W), or several (N, C, H, W) with N at most ``most``. Objects are refused.

        Raises:
            Refused: 422.
        """
        array = _npy(body)
        if array.ndim not in (3, 4) or (array.ndim == 4 and not 1 <= len(array) <= most):
            allowed = f"(C, H, W), or (N, C, H, W) with N from 1 to {most}"
            raise Refused(422, f"the body: an array of shape {array.shape}; allowed: {allowed}")
        batch = array[None] if array.ndim == 3 else array
        return [self.checked(image, f"images[{i}]" if array.ndim == 4 else "image") for i, image in enumerate(batch)]

    def checked(self, array: NDArray, name: str) -> NDArray[np.float32]:
        """Check shape and range, as everywhere. Raises Refused 422."""
        try:
            return checked_image(array, self._shape, name).numpy()
        except ValueError as error:
            raise Refused(422, str(error)) from None

    def _array(self, value: Any, name: str) -> NDArray[np.float32]:
        if not isinstance(value, list):
            raise Refused(422, f"{name}.array: must be nested lists of numbers, (C, H, W) = {self._shape}")
        try:
            # Of lists that fit in no array, or hold text, NumPy would make objects or numbers of its own reading.
            array = np.array(value)
        except (ValueError, OverflowError, RecursionError):
            array = np.array(None)
        if array.dtype.kind not in "iuf":
            raise Refused(422, f"{name}.array: must be nested lists of numbers, (C, H, W) = {self._shape}")
        return array.astype(np.float32)


def _npy(body: bytes) -> NDArray:
    """The array of an npy file; nothing is allocated that the file does not hold."""
    file = BytesIO(body)
    try:
        version = np.lib.format.read_magic(file)
        read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
        shape, fortran, dtype = read(file, max_header_size=MOST_HEADER)
    except Exception:  # a damaged header can raise nearly anything
        raise Refused(422, "the body: is no array file of NumPy (np.save, allow_pickle=False)") from None
    if dtype.kind != "f" or dtype.itemsize > 8:
        raise Refused(422, f"the body: an array of {dtype}; allowed: floating-point numbers in [0, 1]")
    count = 1
    for side in shape:
        count *= side
    if not shape or count < 1 or count * dtype.itemsize != len(body) - file.tell():
        raise Refused(422, f"the body: its header says shape {shape}, which is not what it holds")
    array = np.frombuffer(body, dtype, offset=file.tell()).copy()
    return array.reshape(shape[::-1]).T if fortran else array.reshape(shape)
