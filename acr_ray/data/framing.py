"""From images of any size to the square that a network sees."""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import Any

from acr_ray.settings import UserError
from acr_ray.settings.image_options import DEFAULT, ImageOptions

SIZE, RESIZED = 224, 256  # of ImageNet: what the field crops, and the shorter side before


def image_functions() -> ModuleType:
    """torchvision's functions on images; loaded when they are needed, since all else does without their seconds."""
    from torchvision.transforms.v2 import functional

    return functional


@dataclass(frozen=True)
class Framing:
    """How an image becomes a square of ``size`` pixels.

    Attributes:
        size: side of the square; None: images stay as they are.
        resize: shorter side before the central crop; None: as it is.
        crop: whether the centre is cropped; else the whole image is resized.
        usual: whether it is what the data set does if nothing is asked for, but for the size.
    """

    size: int | None = None
    resize: int | None = None
    crop: bool = True
    usual: bool = True

    @classmethod
    def of(cls, options: ImageOptions, size: int | None, margin: bool) -> Framing:
        """Return the framing that a user asks for.

        Args:
            options: the user's.
            size: the data set's own; None: none.
            margin: whether the shorter side is 256/224 of the size before the crop, as ImageNet's, if nothing else is
                said.

        Raises:
            UserError: images would be shorter than the crop.
        """
        side = options.size or size
        if side is None:
            return cls(usual=not options.frames)
        default = side * RESIZED // SIZE if margin else side
        resize = {DEFAULT: default, "none": None}.get(options.resize, 0)
        resize = int(options.resize) if resize == 0 else resize
        if options.crop and resize is not None and resize < side:
            raise UserError(f"data.resize = {resize}: less than data.size = {side}, so the rest would be black")
        return cls(side, resize, options.crop, (resize, options.crop) == (default, True))

    def __call__(self, image: Any) -> Any:
        """The square of an image, PIL's or a tensor (C, H, W). Raises ValueError if it is too small to be cropped."""
        if self.size is None:
            return image
        F, square = image_functions(), [self.size, self.size]
        if not self.crop:
            return F.resize(image, square)
        image = image if self.resize is None else F.resize(image, [self.resize])
        if min(F.get_size(image)) < self.size:
            raise ValueError(f"smaller than data.size = {self.size}, and data.resize = none; give another data.resize")
        return F.center_crop(image, square)

    @property
    def identity(self) -> bytes:
        """What a fingerprint takes of it, beside the shape: nothing where it is the usual one."""
        return b"" if self.usual else f"resize {self.resize} crop {self.crop}".encode()
