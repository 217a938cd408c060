"""JPEGs decoded and framed on a GPU: an option of the training loader (``data.decode = gpu``).

Processes that decode on a CPU read a few hundred images a second each; a GPU takes thousands. Its decoder and its
resizing round otherwise than the CPU's (by a grey level or two), so it is part of a run. Files that a GPU's decoder
may read otherwise than people see them (turned, with a colour profile, CMYK, no JPEG) are decoded on the CPU.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from io import BytesIO
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from acr_ray.data.chance import uniforms
from acr_ray.data.decoded_set import DecodedSet, channels_first
from acr_ray.data.decoding import ORIENTATION, decoded_image
from acr_ray.data.framing import image_functions
from acr_ray.data.image_set import ImageSet
from acr_ray.data.views import random_resized_crop
from acr_ray.settings import UserError

END, TAIL = b"\xff\xd9", 64  # the marker at a JPEG's end, and the bytes in which it must be
AUGMENTATIONS = ("none", "flip", "resized_crop")


class Encoded(NamedTuple):
    """Images of a batch on their way to the GPU: one tensor, since each would be a file handle between processes.

    Attributes:
        content: uint8, one image behind the other.
        shapes: ``(length,)`` of a JPEG file, ``(3, H, W)`` of pixels that were decoded on the CPU.
    """

    content: Tensor
    shapes: list[tuple[int, ...]]

    def parts(self) -> Iterator[tuple[Tensor, tuple[int, ...]]]:
        """Each image's own bytes, with its shape."""
        lengths = [int(np.prod(shape)) for shape in self.shapes]
        return zip(self.content.split(lengths), self.shapes, strict=True)


def decoding_problem(images: ImageSet) -> str | None:
    """Return why images cannot be decoded on a GPU, in one line; None if they can."""
    if not isinstance(images, DecodedSet) or not images.of_files:
        return f"data.decode = gpu: {images.dataset} holds no image files in folders or a pack; leave it out"
    if images.augmentation not in AUGMENTATIONS:
        allowed = ", ".join(AUGMENTATIONS)
        return f"data.decode = gpu: not with data.augmentation = {images.augmentation}; allowed: {allowed}"
    return None


class DeviceDecoder:
    """Reads files in loader processes, and makes views of them on a device.

    Args:
        images: folders, or a pack.
        device: a CUDA device; tests decode on ``"cpu"``, by another decoder than `decoded_image`'s.

    Raises:
        UserError: the images are none that a GPU can decode, or torchvision has no decoder for it.
    """

    def __init__(self, images: ImageSet, device: str) -> None:
        if problem := decoding_problem(images):
            raise UserError(problem)
        assert isinstance(images, DecodedSet)  # as found
        self._images, self._device = images, device
        try:
            from torchvision.io import decode_jpeg  # noqa: F401
        except ImportError:
            raise UserError("data.decode = gpu: this torchvision has no decoder for JPEGs; leave it out") from None

    def read(self, items: np.ndarray) -> Encoded:
        """Read a batch's files; to be called in loader processes. Raises UserError if one is missing or broken."""
        found: list[np.ndarray] = []
        for row in self._images.idx[np.asarray(items, dtype=np.int64)]:
            content = self._images.encoded(int(row))
            if is_plain_jpeg(content):
                found.append(np.frombuffer(content, dtype=np.uint8))
            else:
                image = decoded_image(content, self._images._where(int(row)))
                found.append(np.ascontiguousarray(channels_first(image)))
        shapes = [pixels.shape for pixels in found]
        return Encoded(torch.from_numpy(np.concatenate([pixels.reshape(-1) for pixels in found])), shapes)

    def views(self, encoded: Encoded, items: np.ndarray, seeds: np.ndarray | None) -> Tensor:
        """Decode and frame a batch.

        Args:
            encoded: of `read`.
            items: of the batch, for messages.
            seeds: of the training views; None: evaluation views.

        Returns:
            uint8 ``(B, 3, H, W)`` on the device.

        Raises:
            UserError: a file is broken, or too small to be framed; names it.
        """
        rows = self._images.idx[np.asarray(items, dtype=np.int64)]
        whole, made = self._decoded(encoded, rows), []
        for place, (image, row) in enumerate(zip(whole, rows, strict=True)):
            try:
                made.append(self._view(image, None if seeds is None else int(seeds[place])))
            except ValueError as error:
                raise UserError(f"{self._images._where(int(row))}: {error}") from None
        return torch.stack(made)

    def _view(self, image: Tensor, seed: int | None) -> Tensor:
        F, augmentation = image_functions(), self._images.augmentation
        if seed is None or augmentation == "none":
            return self._images.framing(image)
        if augmentation == "flip":
            square = self._images.framing(image)
            return F.horizontal_flip(square) if uniforms([seed], 1)[0, 0] < 0.5 else square
        height, width = F.get_size(image)
        *box, mirrored = random_resized_crop(height, width, seed)
        image = F.resized_crop(image, *box, list(self._images.shape[1:]))
        return F.horizontal_flip(image) if mirrored else image

    def _decoded(self, encoded: Encoded, rows: np.ndarray) -> list[Tensor]:
        found: list[Any] = [None] * len(rows)
        files: list[tuple[int, Tensor]] = []
        for place, (content, shape) in enumerate(encoded.parts()):
            if len(shape) == 1:
                files.append((place, content))
            else:
                found[place] = content.view(shape).to(self._device, non_blocking=True)
        places, contents = [place for place, _ in files], [content for _, content in files]
        try:
            pixels = _decode(contents, self._device)
        except RuntimeError:  # one of them is broken: which?
            pixels = [self._named(content, int(rows[place])) for place, content in files]
        for place, image in zip(places, pixels, strict=True):
            found[place] = image
        return found

    def _named(self, content: Tensor, row: int) -> Tensor:
        try:
            return _decode([content], self._device)[0]
        except RuntimeError as error:
            where, why = self._images._where(row), " ".join(str(error).split())[:200]
            raise UserError(f"{where}: broken image file ({why}); remove or replace it") from None


def _decode(contents: Sequence[Tensor], device: str) -> list[Tensor]:
    from torchvision.io import ImageReadMode, decode_jpeg

    if not contents:
        return []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torchvision 0.29 is going to hand its decoders over to torchcodec
        return decode_jpeg(list(contents), mode=ImageReadMode.RGB, device=device)


def is_plain_jpeg(content: bytes) -> bool:
    """Whether a file is a JPEG that every decoder reads alike: whole, upright, RGB, without a colour profile."""
    if END not in content[-TAIL:]:
        return False  # cut off: some decoders fill the rest with grey and say nothing
    try:
        with warnings.catch_warnings(), Image.open(BytesIO(content)) as image:
            warnings.simplefilter("ignore")
            kind = image.format == "JPEG" and image.mode == "RGB" and "icc_profile" not in image.info
            return kind and image.info.get("adobe_transform", 1) == 1 and image.getexif().get(ORIENTATION, 1) == 1
    except Exception:  # `decoded_image` says what is wrong with it
        return False
