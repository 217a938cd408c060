"""What can be read is read; what is left out is counted, by ending, and said."""

import shutil

import pytest
from PIL import Image

from acr_ray.data import open_images
from acr_ray.settings import UserError
from tests.fakes.images import SYNSETS, write_imagenet


@pytest.fixture
def root(tmp_path):
    return write_imagenet(tmp_path / "i")


def add(path, kind="JPEG"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (30, 26), (9, 90, 200)).save(path, kind)


def test_endings_and_subfolders_are_read(root):
    before = open_images("imagenet", str(root), "train")
    folder = root / "train" / SYNSETS[0]
    kinds = {"a.gif": "GIF", "b.jfif": "JPEG", "c": "JPEG", "d.JPE": "JPEG", "e.pgm": "PPM", "f.webp": "WEBP"}
    for name, kind in {**kinds, "g": "PNG", "h": "WEBP", "sub/i.JPEG": "JPEG", "sub/deep/j.png": "PNG"}.items():
        add(folder / name, kind)
    images = open_images("imagenet", str(root), "train")
    new = sorted(set(images.names) - set(before.names))
    assert [name.removeprefix(f"train/{SYNSETS[0]}/") for name in new] == [
        "a.gif",
        "b.jfif",
        "c",
        "d.JPE",
        "e.pgm",
        "f.webp",
        "g",
        "h",
        "sub/deep/j.png",
        "sub/i.JPEG",
    ]
    assert images.remarks == () and before.remarks == ()
    assert images.pixels(range(len(images)), None).shape[0] == len(before) + 10
    assert images.fingerprint() != before.fingerprint()


def test_what_is_left_out_is_counted_by_ending(root):
    folder = root / "train" / SYNSETS[0]
    for name in ("a.txt", "b.txt", "sub/c.xml", "README", ".hidden", "d.JPEG.part"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"text")
    (root / "train" / "loose.JPEG").write_bytes(b"x")
    before = len(open_images("imagenet", str(root), "train"))
    (line,) = open_images("imagenet", str(root), "train").remarks
    assert before == 12 and line == (
        f"{root}/train: 6 files are left out: 1 .JPEG (not in a class folder); 1 .part (not an image's ending); "
        "2 .txt (not an image's ending); 1 .xml (not an image's ending); 1 without an ending (not an image's ending)"
    )


def test_names_that_are_no_text_and_links_that_go_round(root):
    folder = root / "train" / SYNSETS[0]
    shutil.copy(next(folder.iterdir()), bytes(folder) + b"/\xff.JPEG")
    assert "1 .JPEG (its name is not UTF-8)" in open_images("imagenet", str(root), "train").remarks[0].replace(
        "without an ending", ".JPEG"
    )
    (folder / "round").symlink_to(folder)
    with pytest.raises(UserError, match="links that go round"):
        open_images("imagenet", str(root), "train")


def test_numbered_folders_are_in_the_order_of_their_numbers(tmp_path):
    for number in range(12):
        add(tmp_path / "train" / str(number) / f"{number}.JPEG")
    images = open_images("imagenet", str(tmp_path), "train")
    assert images.class_names == tuple(map(str, range(12)))
    assert [name.split("/")[1] for name in images.names] == list(images.class_names)
    add(tmp_path / "train" / "x" / "x.JPEG")
    assert open_images("imagenet", str(tmp_path), "train").class_names[:3] == ("0", "1", "10")
