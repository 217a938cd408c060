"""What is special to each kind of data: layouts, labels, class names, and files that are not what they should be."""

import json
import shutil
import sys
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from acr_ray.data import open_images
from acr_ray.data.image_set import mean_and_std
from acr_ray.settings import UserError
from acr_ray.settings.image_options import ImageOptions
from tests.fakes.datasets import NAMES, OWN_MODULE, pixels, png, table, write_mnist
from tests.fakes.images import SYNSETS

IMAGES, LABELS = pixels("test")
PLACED = torch.from_numpy(IMAGES).permute(0, 3, 1, 2).float() / 255


def loaded(images):
    return images.load(range(len(images)), None)


@pytest.mark.parametrize("dataset", ["npz", "parquet", f"{OWN_MODULE}:images"])
def test_pixels_labels_and_names_come_back_as_they_were(dataset, roots):
    images = open_images(dataset, roots.get(dataset), "test")
    assert torch.equal(loaded(images), PLACED)
    assert images.labels.tolist() == LABELS.tolist() and list(images.class_names) == NAMES
    assert not images.bare_labels


def test_svhns_ten_is_zero(roots):
    images = open_images("svhn", roots["svhn"], "test")
    assert images.labels.tolist() == LABELS.tolist()
    assert torch.equal(loaded(images), torch.from_numpy(pixels("test", side=32)[0]).permute(0, 3, 1, 2) / 255)


def test_cifar100_has_fine_labels_and_their_names(roots):
    images = open_images("cifar100", roots["cifar100"], "train")
    assert images.labels.tolist() == list(range(100)) and len(set(images.class_names)) == 100
    assert (images.class_names[0], images.class_names[99]) == ("apple", "worm")


def test_mnist_in_both_forms_is_the_same(roots, tmp_path):
    write_mnist(tmp_path / "MNIST" / "raw", packed=False)
    plain, packed = (open_images("mnist", str(root), "test") for root in (tmp_path, roots["mnist"]))
    assert plain.fingerprint() == packed.fingerprint() and plain.shape == (1, 28, 28)


@pytest.mark.parametrize("damage", ["short", "torn", "text"])
def test_damaged_idx_files_are_named(damage, tmp_path):
    write_mnist(tmp_path, packed=damage == "torn")
    path = next(tmp_path.glob("t10k-images*"))
    path.write_bytes(b"hello" if damage == "text" else path.read_bytes()[:-40])
    with pytest.raises(UserError, match=str(path)):
        open_images("mnist", str(tmp_path), "test")


# ImageNet is a case of a folder.


def test_a_folder_gives_imagenets_pixels(roots):
    for split in ("train", "test"):
        one, other = (open_images(name, roots["imagenet"], split) for name in ("imagenet", "folder"))
        assert one.names == other.names and one.class_names == other.class_names
        for seeds in (None, [5, 6, 7]):
            assert torch.equal(one.load([0, 2, 4], seeds), other.load([0, 2, 4], seeds))


def test_size_resize_and_crop_of_a_folder(roots):
    def shape_and_mark(**options):
        images = open_images("folder", roots["folder"], "test", options=ImageOptions(**options))
        return images.shape, images.fingerprint()

    usual = shape_and_mark(size=32)
    assert usual[0] == (3, 32, 32) and usual == shape_and_mark(size=32, resize="36")
    other = [shape_and_mark(size=32, resize="none"), shape_and_mark(size=32, crop=False), shape_and_mark(size=48)]
    assert len({usual, *other}) == 4
    with pytest.raises(UserError, match="data.resize = 20: less than data.size = 32"):
        shape_and_mark(size=32, resize="20")
    images = open_images("folder", roots["folder"], "test", options=ImageOptions(size=1000, resize="none"))
    with pytest.raises(UserError, match=r"val_00000000.JPEG: smaller than data.size = 1000"):
        images.load([0], None)


@pytest.mark.parametrize("top", ["test", "val", "validation"])
def test_the_held_out_folder_may_have_any_of_three_names(top, roots, tmp_path):
    root = shutil.copytree(roots["folder"], tmp_path / "own")
    (root / "val").rename(root / top)
    images = open_images("folder", str(root), "test")
    assert images.names[0].startswith(f"{top}/{SYNSETS[0]}/") and len(images) == 9


def test_one_list_of_class_folders_is_both_splits(roots, tmp_path):
    root = shutil.copytree(f"{roots['folder']}/train", tmp_path / "own")
    (root / SYNSETS[0]).rename(root / "train")  # a class may have that name
    train, test = (open_images("folder", str(root), split) for split in ("train", "test"))
    assert train.labels.tolist() == test.labels.tolist() and "train" in train.class_names
    assert any("train and test are both all of it" in line for line in test.remarks)


def test_a_folder_without_training_images_can_be_certified(roots, tmp_path):
    root = shutil.copytree(roots["folder"], tmp_path / "own")
    shutil.rmtree(root / "train")
    assert open_images("folder", str(root), "test").class_names == SYNSETS[:3]
    with pytest.raises(UserError, match="no train folder"):
        open_images("folder", str(root), "train")


def odd(kind, path):
    colours = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    image = Image.fromarray(colours)
    if kind == "16-bit":
        Image.fromarray(colours[..., 0].astype(np.uint16) * 257).save(path, "PNG")
    elif kind == "exif":
        about = image.getexif()
        about[0x0112] = 6
        image.save(path, "JPEG", exif=about)
    elif kind == "broken":
        path.write_bytes(png(colours)[:-60])
    elif kind == "text":
        path.write_bytes(b"<html>404</html>")
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind in ("L", "P", "CMYK"):
        image.convert(kind).save(path, "TIFF")
    else:
        image.convert(kind).save(path, "PNG")


RIGHT, REFUSED = ["L", "RGBA", "P", "CMYK", "16-bit", "exif"], ["broken", "text", "empty"]


@pytest.mark.parametrize("kind", [*RIGHT, *REFUSED])
@pytest.mark.parametrize("dataset", ["folder", "parquet"])
def test_odd_images_are_read_right_or_refused_by_name(dataset, kind, tmp_path):
    odd(kind, tmp_path / "odd.PNG")
    if dataset == "folder":
        for name in ("ü", "b"):
            (tmp_path / "own" / "val" / name).mkdir(parents=True)
            shutil.copy(tmp_path / "odd.PNG", tmp_path / "own" / "val" / name / "bild é.PNG")
        root, named = tmp_path / "own", "bild é.PNG"
        (root / "val" / "b" / "link.jpg").symlink_to(tmp_path / "odd.PNG")
    else:
        root, named = tmp_path / "own.parquet", "own.parquet: row 1"
        content = (tmp_path / "odd.PNG").read_bytes()
        pq.write_table(table([png(IMAGES[0]), content, content], np.array([0, 1, 1]), None), root)
    images = open_images(dataset, str(root), "test", options=ImageOptions(size=32))
    assert len(images) == 3
    if kind in RIGHT:
        assert loaded(images).shape == (3, 3, 32, 32) and loaded(images)[1:].std() > 0.01
    else:
        with pytest.raises(UserError, match=named) as caught:
            loaded(images)
        assert "\n" not in str(caught.value) and any(w in str(caught.value) for w in ("remove", "put them"))


def test_an_empty_class_is_named_with_what_to_do(roots, tmp_path):
    root = shutil.copytree(roots["folder"], tmp_path / "own")
    for top in ("train", "val"):
        (root / top / "nothing").mkdir()
    with pytest.raises(UserError, match=r"no image in val/nothing .*; remove the folder"):
        open_images("folder", str(root), "test")


# Arrays.


def written(path, **arrays):
    np.savez(path, **arrays)
    return str(path)


@pytest.mark.parametrize("order", ["NHWC", "NCHW", "NHW"])
def test_npz_takes_the_usual_orders_of_axes(order, tmp_path):
    images = {"NHWC": IMAGES, "NCHW": IMAGES.transpose(0, 3, 1, 2), "NHW": IMAGES[..., 0]}[order]
    found = open_images("npz", written(tmp_path / "a.npz", x=images, y=LABELS[:, None]), "test")
    assert torch.equal(loaded(found), PLACED[:, :1] if order == "NHW" else PLACED)
    assert found.bare_labels and found.class_names == tuple("0123456789")


def test_floats_are_kept_as_they_are(tmp_path):
    exact = open_images("npz", written(tmp_path / "a.npz", x=IMAGES / 255, y=LABELS), "test")
    assert exact.peak == 255 and torch.equal(loaded(exact), PLACED)
    halves = (IMAGES / 510).astype(np.float32)
    other = open_images("npz", written(tmp_path / "b.npz", x=halves, y=LABELS), "test")
    assert other.peak == 1 and torch.equal(loaded(other), torch.from_numpy(halves).permute(0, 3, 1, 2))
    wide = open_images("npz", written(tmp_path / "c.npz", x=IMAGES / 510, y=LABELS), "test")
    assert any("kept as float32" in line for line in wide.remarks)


def test_keras_names_of_arrays_are_splits(tmp_path):
    train, labels = pixels("train")
    path = written(tmp_path / "a.npz", x_train=train, y_train=labels, x_test=IMAGES, y_test=LABELS)
    assert [len(open_images("npz", path, split)) for split in ("train", "test")] == [40, 20]


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"x": IMAGES * 1.0, "y": LABELS}, r"values from 0 to \d+; allowed: 0 to 1 \(divide by 255"),
        ({"x": IMAGES / 255 - 0.5, "y": LABELS}, "leave normalisation out"),
        ({"x": np.where(IMAGES > 200, np.nan, 0.5), "y": LABELS}, "images hold NaN"),
        ({"x": IMAGES.astype(np.int64), "y": LABELS}, "images are int64; allowed: uint8"),
        ({"x": IMAGES[:, :3], "y": LABELS}, "either axis may be the channels"),
        ({"x": IMAGES, "y": LABELS[:5]}, r"labels \(5,\) for 20 images"),
        ({"x": IMAGES, "y": LABELS - 1}, "label of -1 says that the class is not known"),
        ({"x": IMAGES, "y": LABELS / 2}, "labels are float64"),
        ({"x": IMAGES, "y": LABELS, "class_names": np.array(["a", "b"])}, "labels from 0 to 9; allowed: 0 to 1"),
        ({"pictures": IMAGES, "y": LABELS}, "holds pictures, y; needed: images and labels"),
        ({"x": IMAGES, "y": np.array([{}] * 20)}, "y: cannot be read .*refused, not run"),
    ],
)
def test_arrays_that_are_no_images_are_refused(arrays, said, tmp_path):
    path = written(tmp_path / "a.npz", **arrays)
    with pytest.raises(UserError, match=said) as caught:
        open_images("npz", path, "test")
    assert path in str(caught.value) and "\n" not in str(caught.value)


def test_an_array_that_claims_to_be_larger_than_its_file_is_not_made(tmp_path):
    path = tmp_path / "a.npz"
    header = b"\x93NUMPY\x01\x00v\x00" + b"{'descr': '|u1', 'fortran_order': False, 'shape': (9999999999, 999), }"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("x.npy", header.ljust(127) + b"\n")
        file.writestr("y.npy", b"")
    with pytest.raises(UserError, match="x: cannot be read .*does not fit into 128 bytes"):
        open_images("npz", str(path), "test")


def test_constants_are_those_of_the_training_split(roots):
    images = open_images("npz", roots["npz"], "train")
    x = pixels("train")[0] / 255
    assert images.mean == tuple(x.mean((0, 1, 2)).round(4)) and images.std == tuple(x.std((0, 1, 2)).round(4))
    assert images.subset([3, 4]).mean == images.mean
    given = open_images("npz", roots["npz"], "train", options=ImageOptions(mean=(0.1, 0.2, 0.3), std=(1.0, 1.0, 1.0)))
    assert given.mean == (0.1, 0.2, 0.3) and given.fingerprint() == images.fingerprint()
    assert mean_and_std([np.full((2, 1, 2, 2), 51, np.uint8)], 255) == ((0.2,), (1.0,))


@pytest.mark.parametrize("augmentation", ["none", "flip", "crop_flip", "resized_crop"])
@pytest.mark.parametrize("dataset", ["cifar10", "npz", "folder", "parquet"])
def test_every_augmentation_of_every_storage(dataset, augmentation, roots):
    options = ImageOptions(size=24, augmentation=augmentation)
    images = open_images(dataset, roots[dataset], "train", options=options)
    views = images.load([1] * 12, range(12))
    assert views.shape == (12, 3, 24, 24) and torch.equal(views[3], images.load([1], [3])[0])
    different = len({view.numpy().tobytes() for view in views})
    assert {"none": different == 1, "flip": different == 2}.get(augmentation, different > 6)


# Parquet.


def test_parquet_labels_may_be_text_or_without_names(tmp_path):
    encoded = [png(image) for image in IMAGES[:4]]
    pq.write_table(table(encoded, np.array([0, 1, 2, 1]), None), tmp_path / "a.parquet")
    bare = open_images("parquet", str(tmp_path / "a.parquet"), "test")
    assert bare.bare_labels and bare.class_names == ("0", "1", "2")
    pq.write_table(pa.table({"img": encoded, "label": ["dog", "cat", "dog", "eel"]}), tmp_path / "b.parquet")
    text = open_images("parquet", str(tmp_path / "b.parquet"), "test")
    assert text.class_names == ("cat", "dog", "eel") and text.labels.tolist() == [1, 0, 1, 2]


def test_parquet_images_of_many_sizes_need_one(tmp_path):
    pq.write_table(table([png(IMAGES[0]), png(IMAGES[1][:8])], np.array([0, 1]), None), tmp_path / "a.parquet")
    with pytest.raises(UserError, match=r"row 1: is an image \(3, 8, 16\), others are \(3, 16, 16\); give --data.size"):
        loaded(open_images("parquet", str(tmp_path / "a.parquet"), "test"))
    small = open_images("parquet", str(tmp_path / "a.parquet"), "test", options=ImageOptions(size=8))
    assert loaded(small).shape == (2, 3, 8, 8)


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"picture": [b"x"], "label": [0]}, "holds columns picture, label; needed: one called image"),
        ({"image": ["a.png"], "label": [0]}, "image is string; allowed: encoded images"),
        ({"image": [b"x"], "label": [None]}, "label: 1 rows have no label|neither whole numbers"),
        ({"image": [b""], "label": [0]}, "row 0: no bytes of an image"),
        ({"image": [b"x"], "label": [-1]}, "no known kind of image|not known"),
    ],
)
def test_other_parquet_files_are_refused(columns, said, tmp_path):
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    with pytest.raises(UserError, match=said):
        open_images("parquet", str(tmp_path / "a.parquet"), "test")
    (tmp_path / "b.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(UserError, match=r"b.parquet: not a Parquet file"):
        open_images("parquet", str(tmp_path / "b.parquet"), "test")


# A user's own.


@pytest.fixture
def own(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))

    def make(body):
        (tmp_path / "own_data_here.py").write_text(f"import numpy as np, torch\nfrom PIL import Image\n{body}")
        sys.modules.pop("own_data_here", None)
        return "own_data_here:images"

    yield make
    sys.modules.pop("own_data_here", None)


def test_a_function_gets_root_and_split_where_it_takes_them(roots):
    images = open_images(f"{OWN_MODULE}:arrays", "/somewhere", "test")
    assert images.bare_labels and len(images) == 20 and images.peak == 1


def test_a_dataset_of_tensors_and_torchvisions_own_classes_work(own, roots):
    name = own("def images():\n    return [(torch.full((3, 4, 5), k / 7), k % 3) for k in range(6)]\n")
    images = open_images(name, None, "test")
    assert images.shape == (3, 4, 5) and images.load([3], None)[0, 0, 0, 0] == torch.tensor(3 / 7)
    assert any("takes no split=" in line for line in images.remarks)
    name = own(
        "from torchvision.datasets import ImageFolder\ndef images(split, root):\n"
        "    return ImageFolder(root + {'train': '/train', 'test': '/val'}[split])\n"
    )
    folder = open_images(name, roots["folder"], "test", options=ImageOptions(size=224))
    same = open_images("folder", roots["folder"], "test")
    assert folder.class_names == same.class_names and torch.equal(folder.load([0, 4], None), same.load([0, 4], None))


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("def images():\n    raise RuntimeError('no disk')\n", "RuntimeError: no disk"),
        ("def images():\n    return 7\n", "gives a int; needed"),
        ("def images():\n    return []\n", "no image"),
        ("def images():\n    return [(torch.randn(3, 4, 4), 0)] * 3\n", "leave normalisation out"),
        ("class D(list):\n    def __getitem__(self, i):\n        return torch.rand(3, 4, 4), 0\n"
         "def images():\n    return D([0, 1])\n", "image 0 differs each time it is read"),
        ("def images():\n    return [(torch.zeros(3, 4, 4), 'cat')]\n", "its label is a str"),
        ("def images():\n    return [(Image.new('L', (4, 4)), 0), (Image.new('RGB', (4, 4)), 1)]\n", "image 0 is grey"),
        ("def images(:\n", "cannot be imported"),
    ],
)  # fmt: skip
def test_own_code_that_does_not_fit_is_one_line(own, body, said):
    with pytest.raises(UserError, match=said) as caught:
        loaded(open_images(own(body), None, "test"))
    assert str(caught.value).startswith("--dataset own_data_here:images: ")


# For all kinds.


def test_fingerprints_change_with_content(tmp_path):
    def marks(change):
        images = IMAGES.copy()
        images[3, 0, 0, 0] += change
        written(tmp_path / "a.npz", x=images, y=LABELS)
        pq.write_table(table([png(image) for image in images], LABELS, None), tmp_path / "a.parquet")
        return [open_images(kind, str(tmp_path / f"a.{kind}"), "test").fingerprint() for kind in ("npz", "parquet")]

    before = marks(0)
    assert marks(0) == before
    assert all(one != other for one, other in zip(before, marks(1), strict=True))


@pytest.mark.parametrize("dataset", ["cifar100", "svhn", "mnist", "fashion_mnist", "folder", "npz", "parquet"])
def test_a_root_may_be_a_uri(dataset, roots, tmp_path, monkeypatch):
    monkeypatch.setenv("ACR_RAY_CACHE", str(tmp_path / "cache"))
    root = shutil.copytree(roots[dataset], tmp_path / "store" / dataset)
    here, there = (open_images(dataset, place, "test") for place in (str(root), f"file://{root}"))
    assert here.fingerprint() == there.fingerprint()
    if dataset == "folder":  # what changes in the store is fetched anew
        shutil.copy(root / here.names[0], root / "val" / SYNSETS[0] / "more.JPEG")
        assert len(open_images(dataset, f"file://{root}", "test")) == 10


def test_a_file_may_be_a_uri(tmp_path, monkeypatch):
    monkeypatch.setenv("ACR_RAY_CACHE", str(tmp_path / "cache"))
    path = written(tmp_path / "a.npz", x=IMAGES, y=LABELS)
    assert len(open_images("npz", f"file://{path}", "test")) == 20
    written(tmp_path / "a.npz", x=IMAGES[:10], y=LABELS[:10])
    assert len(open_images("npz", f"file://{path}", "test")) == 10


def test_labels_without_names_are_taken_as_the_models(tmp_path):
    images = open_images("npz", written(tmp_path / "a.npz", x=IMAGES, y=LABELS), "test")
    found = images.in_order_of(NAMES, "CHECKPOINT x")
    assert found.labels.tolist() == LABELS.tolist() and list(found.class_names) == NAMES
    with pytest.raises(UserError, match="has 5 classes; the data's labels go to 9"):
        images.in_order_of(NAMES[:5], "CHECKPOINT x")


def test_hub_metadata_that_say_nothing_leave_labels_bare(tmp_path):
    odd_ones = (b"no json", b"[]", json.dumps({"info": {"features": {"label": {"names": [1]}}}}).encode())
    for about in odd_ones:
        rows = table([png(IMAGES[0])] * 2, np.array([0, 1]), None).replace_schema_metadata({b"huggingface": about})
        pq.write_table(rows, tmp_path / "a.parquet")
        assert open_images("parquet", str(tmp_path / "a.parquet"), "test").bare_labels
