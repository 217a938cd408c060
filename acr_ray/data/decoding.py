"""From an image file's bytes to what a person sees: 8-bit RGB, upright, in sRGB; or a refusal that names the file."""

from __future__ import annotations

import warnings
from functools import lru_cache
from io import BytesIO
from typing import cast

import numpy as np
from PIL import Image, ImageCms, UnidentifiedImageError

from acr_ray.settings import UserError

MOST_BYTES = 2**30  # of an image file
ORIENTATION = 0x0112  # EXIF
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_PLAIN = ("1", "L", "P", "RGB", "CMYK", "YCbCr", "HSV")
_WITH_ALPHA = ("LA", "La", "PA", "RGBA", "RGBa")


def decoded_image(content: bytes, where: object) -> Image.Image:
    """The image as 8-bit RGB, decoded to its last row.

    - 16 bits a channel become 8 by dividing by 257 (65,535 is white);
    - EXIF's orientation is applied; transparent parts are laid on white;
    - colours of an embedded profile other than sRGB are converted to sRGB.

    Args:
        content: the file.
        where: it is, for the message.

    Raises:
        UserError: it is damaged, of a kind with no single reading (several frames, floats, whole numbers of 32 bits),
            or no image.
    """
    try:
        with warnings.catch_warnings(), Image.open(BytesIO(content)) as image:
            warnings.simplefilter("ignore")  # of damaged notes beside the pixels, once for every image
            # A phone's MPO holds its picture first; frames of others may be anything.
            frames = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
            if frames > 1:
                raise UserError(f"{where}: holds {frames} frames; one image a file is needed")
            image.load()
            return _upright(_in_rgb(image, where), _orientation(image))
    except UserError:
        raise
    except UnidentifiedImageError:
        raise UserError(
            f"{where}: broken image file ({len(content):,} bytes of no known kind of image); remove or replace it"
        ) from None
    except Exception as error:  # a damaged file can raise nearly anything from a decoder
        raise UserError(
            f"{where}: broken image file ({type(error).__name__}: {str(error)[:200]}); remove or replace it"
        ) from None


def as_rgb(image: Image.Image, where: object) -> Image.Image:
    """An image that a user's code has opened, as `decoded_image` reads files.

    Raises:
        UserError: its pixels have no one reading as colours, or are damaged.
    """
    try:
        return (
            image
            if image.mode == "RGB" and not image.getexif()
            else _upright(_in_rgb(image, where), _orientation(image))
        )
    except UserError:
        raise
    except Exception as error:  # a damaged file can raise nearly anything from a decoder
        raise UserError(f"{where}: broken image ({type(error).__name__}: {str(error)[:200]})") from None


def _in_rgb(image: Image.Image, where: object) -> Image.Image:
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        values = np.asarray(image).astype(np.int64)
        return Image.fromarray(((values + 128) // 257).astype(np.uint8)).convert("RGB")
    profile = image.info.get("icc_profile")
    if image.mode in _WITH_ALPHA or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image).convert("RGB")
    elif image.mode not in _PLAIN:
        raise UserError(f"{where}: pixels of kind {image.mode} have no one reading as colours; save 8 or 16 bits")
    image = image.convert("RGB") if image.mode == "P" else image
    if profile and image.mode in ("L", "RGB", "CMYK"):
        transform = _to_srgb(profile, image.mode)
        if transform is not None:
            return cast(Image.Image, ImageCms.applyTransform(image, transform))  # None only where it works in place
    return image.convert("RGB")


@lru_cache(maxsize=64)
def _to_srgb(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """None where the profile is sRGB itself, which changes nothing, or damaged, which says nothing."""
    try:
        found = ImageCms.ImageCmsProfile(BytesIO(profile))
        if "srgb" in (ImageCms.getProfileDescription(found) or "").lower():
            return None
        return ImageCms.buildTransform(found, ImageCms.createProfile("sRGB"), mode, "RGB")
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None


def _orientation(image: Image.Image) -> int:
    try:
        return image.getexif().get(ORIENTATION, 1)
    except Exception:  # damaged EXIF is left aside, as every viewer does
        return 1


def _upright(image: Image.Image, orientation: object) -> Image.Image:
    turn = _TURNS.get(orientation) if isinstance(orientation, int) else None
    return image if turn is None else image.transpose(turn)
