"""How images become what a network sees: size, resize, crop, augmentation and normalisation constants."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from acr_ray.settings.base import Words

MOST_SIDE = 1024  # of a square that a network sees
DEFAULT = "default"

Augmentation = Literal["default", "none", "flip", "crop_flip", "resized_crop"]


def _resize(value: Any) -> str:
    text = "none" if value is None else str(value).strip().lower()
    if text in (DEFAULT, "none") or (text.isascii() and text.isdecimal() and 1 <= int(text[:9]) <= 16 * MOST_SIDE):
        return text
    raise ValueError(f"must be default, none or a whole number from 1 to {16 * MOST_SIDE}")


Size = Annotated[int, Field(ge=1, le=MOST_SIDE)]
Resize = Annotated[str, BeforeValidator(_resize), Words("whole number|default|none")]

SIZE_TEXT = "side of the square that the network sees; none: the data's own, 224 for folders"
RESIZE_TEXT = "shorter side before the central crop; default: 256/224 of size (arrays: size); none: no resize"
DECODE_TEXT = "gpu: the training's JPEG files on the worker's GPU, which rounds otherwise than a CPU"
CROP_TEXT = "crop the centre; false: resize to size x size, whatever the image's proportions"


@dataclass(frozen=True)
class ImageOptions:
    """How images become what a network sees.

    Attributes:
        size: side in pixels of the square that the network sees; None: the data set's own.
        resize: shorter side in pixels before the central crop, ``default`` or ``none``.
        crop: whether the centre is cropped; else the whole image is resized to ``size`` by ``size``.
        augmentation: of the training view.
        mean, std: per channel, of inputs in [0, 1]; empty: the data set's own.
    """

    size: int | None = None
    resize: str = DEFAULT
    crop: bool = True
    augmentation: Augmentation = "default"
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    @property
    def frames(self) -> bool:
        """Whether anything is said on how images become squares."""
        return (self.size, self.resize, self.crop) != (None, DEFAULT, True)
