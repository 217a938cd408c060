"""Image files of every kind come out as what a person sees, or are refused by name."""

import os
from io import BytesIO

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps

from acr_ray.data import open_images
from acr_ray.data.decoding import decoded_image
from acr_ray.settings import UserError
from jobs import pack
from tests.fakes.images import SYNSETS, write_imagenet

GREY = np.linspace(0, 65535, 12).reshape(3, 4)
COLOURS = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)


def saved(image, kind="PNG", **options):
    stream = BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def pixels(content):
    image = decoded_image(content, "here")
    assert image.mode == "RGB"
    return np.asarray(image)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_sixteen_bits_become_eight(kind):
    image = Image.fromarray(GREY.astype(np.uint16))
    assert image.mode.startswith("I;16")
    found = pixels(saved(image if kind != "PPM" else image.convert("I"), kind))
    assert np.array_equal(found[..., 0], np.rint(GREY / 257).astype(np.uint8))
    assert found.min() == 0 and found.max() == 255 and (found[..., 0] == found[..., 2]).all()


def test_plain_modes_are_what_pillow_says():
    rgb = Image.fromarray(COLOURS)
    for mode, kind in [("RGB", "PNG"), ("L", "PNG"), ("1", "PNG"), ("CMYK", "TIFF"), ("P", "GIF"), ("L", "BMP")]:
        image = rgb.convert(mode)
        assert np.array_equal(pixels(saved(image, kind)), np.asarray(image.convert("RGB"))), mode


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "RGB", "L"])
def test_what_is_transparent_is_laid_on_white(mode):
    if mode in ("RGBA", "LA"):
        image = Image.fromarray(COLOURS).convert(mode)
        alpha = np.full(COLOURS.shape[:2], 255, dtype=np.uint8)
        alpha[0], alpha[1] = 0, 128
        image.putalpha(Image.fromarray(alpha))
        found, plain = pixels(saved(image)), np.asarray(image.convert(mode[:-1]).convert("RGB"))
        assert (found[0] == 255).all() and np.array_equal(found[2:], plain[2:])
        expected = plain[1] * (128 / 255) + 255 * (127 / 255)
        assert np.abs(found[1] - expected).max() <= 1
        return
    image = Image.new(mode, (4, 2), 1 if mode == "P" else 7 if mode == "L" else (7, 7, 7))
    if mode == "P":
        image.putpalette([0, 0, 0, 7, 7, 7])
    key = {"P": 1, "L": 7, "RGB": (7, 7, 7)}[mode]
    assert (pixels(saved(image, transparency=key)) == 255).all() and (pixels(saved(image)) == 7).all()


@pytest.mark.parametrize("orientation", range(10))
def test_exif_orientation_is_applied(orientation):
    image, exif = Image.fromarray(COLOURS), Image.Exif()
    exif[0x0112] = orientation
    content = saved(image, exif=exif)
    with Image.open(BytesIO(content)) as reference:
        assert np.array_equal(pixels(content), np.asarray(ImageOps.exif_transpose(reference)))
    assert (pixels(content).shape != COLOURS.shape) == (orientation in (5, 6, 7, 8))


def test_colour_profiles_are_converted_to_srgb():
    image = Image.fromarray(COLOURS)
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    assert np.array_equal(pixels(saved(image, icc_profile=srgb.tobytes())), COLOURS)
    assert np.array_equal(pixels(saved(image, icc_profile=b"damaged" * 40)), COLOURS)
    other = swapped_profile(srgb.tobytes())
    found = pixels(saved(image, icc_profile=other))
    assert np.abs(found.astype(int) - COLOURS[..., [2, 1, 0]]).max() <= 2, "its red is our blue"


def swapped_profile(content):
    """An sRGB profile with red and blue exchanged, under another name."""
    found = bytearray(content.replace(b"s\0R\0G\0B", b"x\0Y\0Z\0W").replace(b"\0s\0R\0G\0B", b"\0x\0Y\0Z\0W"))
    count = int.from_bytes(found[128:132], "big")
    tags = {bytes(found[132 + 12 * i : 136 + 12 * i]): 132 + 12 * i for i in range(count)}
    red, blue = tags[b"rXYZ"], tags[b"bXYZ"]
    found[red + 4 : red + 12], found[blue + 4 : blue + 12] = (
        found[blue + 4 : blue + 12],
        found[red + 4 : red + 12],
    )
    return bytes(found)


@pytest.mark.parametrize(
    "content, said",
    [
        (saved(Image.fromarray(GREY.astype(np.float32)), "TIFF"), "pixels of kind F"),
        (saved(Image.fromarray(GREY.astype(np.int32)), "TIFF"), "pixels of kind I"),
        (saved(Image.new("L", (2, 2)), "GIF", save_all=True, append_images=[Image.new("L", (2, 2), 9)]), "2 frames"),
        (saved(Image.new("L", (2, 2)), "TIFF", save_all=True, append_images=[Image.new("L", (2, 2))]), "2 frames"),
        (saved(Image.fromarray(COLOURS), "JPEG")[:-30], "broken image file"),
        (saved(Image.fromarray(COLOURS))[:-30], "broken image file"),
        (b"", "broken image file"),
    ],
)
def test_others_are_refused_by_name(content, said):
    with pytest.raises(UserError, match=f"^folder/x.png: .*{said}"):
        decoded_image(content, "folder/x.png")


def test_an_image_that_only_looks_whole_is_found_when_it_is_packed(tmp_path):
    root = write_imagenet(tmp_path / "i")
    broken = sorted((root / "train").rglob("*.JPEG"))[3]
    content = broken.read_bytes()
    broken.write_bytes(content[: len(content) // 2])
    with Image.open(broken) as image:
        image.verify()  # pillow finds nothing wrong with it
    argv = ["--data.root", str(root), "--out", str(tmp_path / "pack"), "--split", "train"]
    with pytest.raises(UserError, match=f"{broken}: broken image file"):
        pack.main(argv)
    assert not (tmp_path / "pack" / "train").exists()
    broken.write_bytes(content)
    pack.main(argv)
    before = open_images("imagenet", str(tmp_path / "pack"), "train").fingerprint()
    broken.write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match="broken image file"):
        pack.main([*argv, "--overwrite"])
    assert open_images("imagenet", str(tmp_path / "pack"), "train").fingerprint() == before, "the old pack is lost"


def test_a_pipe_among_the_images_is_not_waited_for(tmp_path):
    root = write_imagenet(tmp_path / "i")
    os.mkfifo(root / "val" / SYNSETS[0] / "a.JPEG")
    images = open_images("imagenet", str(root), "test")
    assert images.remarks == (f"{root}/val: 1 files are left out: 1 .JPEG (not a regular file)",)
    victim = root / images.names[0]
    victim.unlink()
    os.mkfifo(victim)
    with pytest.raises(UserError, match=f"{victim}: is a named pipe"):
        images.load([0], None)
