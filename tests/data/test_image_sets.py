"""What holds for every image set, whatever it is made of."""

import pickle

import numpy as np
import pytest
import torch

from acr_ray.data import DATASETS, open_images, select
from acr_ray.data.choosing import describe_choice
from acr_ray.data.image_set import MemorySet
from acr_ray.settings import UserError
from acr_ray.settings.datasets import source_of
from tests.fakes.datasets import OWN


@pytest.fixture(params=[(d, s) for d in (*DATASETS, OWN) for s in ("train", "test")], ids="-".join)
def images(request, roots):
    dataset, split = request.param
    return open_images(dataset, roots[dataset], split)


SEEDS = [11, 22, 33, 44]
ITEMS = [3, 0, 5, 2]


def test_describes_itself(images):
    count = len(images)
    assert images.labels.dtype == np.int64 and images.labels.shape == (count,)
    assert len(images.names) == len(set(images.names)) == count
    assert images.idx.tolist() == list(range(count))
    assert set(images.labels) == set(range(len(images.class_names)))
    assert len(images.mean) == len(images.std) == images.shape[0]


@pytest.mark.parametrize("seeds", [None, SEEDS], ids=["evaluation", "training"])
def test_loads_unit_range_floats(images, seeds):
    x = images.load(ITEMS, seeds)
    assert x.dtype == torch.float32 and x.shape == (4, *images.shape) and x.is_contiguous()
    assert x.min() >= 0 and x.max() <= 1 and x.max() > 0.5


def test_a_view_depends_on_its_own_seed_alone(images, roots):
    together = images.load(ITEMS, SEEDS)
    for place, (item, seed) in enumerate(zip(ITEMS, SEEDS, strict=True)):
        assert torch.equal(images.load([item], [seed])[0], together[place])
    assert torch.equal(images.load(ITEMS[::-1], SEEDS[::-1]), together.flip(0))
    again = open_images(images.dataset, roots[images.dataset], images.split)
    assert torch.equal(again.load(ITEMS, SEEDS), together)


def test_training_views_differ_by_seed_where_there_is_augmentation(images):
    views = images.load([1] * 8, range(8))
    different = len({view.numpy().tobytes() for view in views})
    # CIFAR has 162 views of an image, so two of eight may well agree.
    augmented = source_of(images.dataset).augmentation != "none"
    assert different > 5 if augmented else different == 1


def test_loading_leaves_global_random_states_alone(images):
    before, numpys = torch.get_rng_state(), np.random.get_state()[1].copy()
    images.load(ITEMS, SEEDS)
    assert torch.equal(torch.get_rng_state(), before)
    assert np.array_equal(np.random.get_state()[1], numpys)


def test_subset_keeps_names_idx_labels_and_pixels(images):
    chosen = images.subset([4, 1]).subset([1])
    assert (chosen.names, chosen.idx.tolist()) == ((images.names[1],), [1])
    assert chosen.labels.tolist() == [images.labels[1]]
    assert torch.equal(chosen.load([0], [9]), images.load([1], [9]))
    assert torch.equal(chosen.load([0], None), images.load([1], None))


def test_fingerprint_is_stable_and_tells_sets_apart(images, roots):
    again = open_images(images.dataset, roots[images.dataset], images.split)
    assert images.fingerprint() == again.fingerprint()
    assert len(images.fingerprint()) == 64
    assert images.subset([0, 1]).fingerprint() != images.fingerprint()
    assert images.subset([0, 1]).fingerprint() != images.subset([1, 0]).fingerprint()
    relabelled = images.subset(range(len(images)))
    relabelled.labels[0] += 1
    assert relabelled.fingerprint() != images.fingerprint()


def test_travels_to_another_process(images):
    there = pickle.loads(pickle.dumps(images))
    assert there.fingerprint() == images.fingerprint()
    assert torch.equal(there.load(ITEMS, SEEDS), images.load(ITEMS, SEEDS))


def test_one_seed_an_item(images):
    with pytest.raises(ValueError, match="one an item"):
        images.load([0, 1], [5])


def test_select_every_and_at_random(images):
    assert select(images, every=2).idx.tolist() == list(range(0, len(images), 2))
    three, five = (select(images, max_images=k).idx for k in (3, 5))
    assert len(three) == 3 and set(three) < set(five) and np.all(np.diff(five) > 0)
    assert select(images, max_images=3).names == select(images, max_images=3).names
    assert set(select(images, every=3, max_images=2).idx) < set(range(0, len(images), 3))
    assert select(images, max_images=10**9).idx.tolist() == images.idx.tolist()
    # "every" counts in the full split, as the field's idx does, also for what is already chosen.
    assert select(images.subset([1, 2, 4]), every=2).idx.tolist() == [2, 4]


@pytest.mark.parametrize("arrangement", [np.repeat(np.arange(10), 90), np.tile(np.arange(10), 90)])
def test_a_few_images_are_of_many_classes_however_the_set_is_arranged(arrangement):
    """The first twelve of sorted classes are of one class, and so is every 90th of classes that take turns."""
    names = [f"x/{k:04}" for k in range(900)]
    pixels = np.zeros((900, 1, 2, 2), np.uint8)
    images = MemorySet(
        pixels,
        dataset="x",
        split="test",
        labels=arrangement,
        names=names,
        class_names=list("0123456789"),
        mean=(0.5,),
        std=(0.5,),
    )
    chosen = select(images, max_images=12)
    assert len(set(chosen.labels)) >= 6
    assert describe_choice(chosen, 900, 12, None, None).startswith("12 of 900 images (a fixed random choice, ")
    assert describe_choice(select(images, every=100), 900, None, 100, None).startswith("9 of 900 images (--every 100, ")
    assert describe_choice(images, 900, None, None, None) == "900 of 900 images (10 of 10 classes)"
    one = select(images, max_images=30).subset(range(5))
    assert f"{len(set(one.labels))} of 10 classes" in describe_choice(one, 900, None, None, "few.txt")


def test_select_by_list(images, tmp_path):
    listed = tmp_path / "names.txt"
    listed.write_text(f"# two of them\n{images.names[5]}\n\n  {images.names[2]}\n")
    assert select(images, image_list=str(listed)).idx.tolist() == [5, 2]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("digits/9999\n", "line 1: digits/9999 is not in digits test"),
        ("digits/0003\n\ndigits/0003\n", "line 3: digits/0003 is listed twice"),
        ("# nothing\n", "no image is left"),
        (b"\xff\xfe\x00", "not text in UTF-8"),
        (None, "cannot be read"),
    ],
)
def test_bad_lists_are_named(text, message, tmp_path):
    images = open_images("digits", None, "test")
    assert "digits/0003" in images.names
    listed = tmp_path / "names.txt"
    if text is not None:
        listed.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError, match=message):
        select(images, image_list=str(listed))


@pytest.mark.parametrize("choice", [{"every": 0}, {"max_images": 0}, {"every": -3}])
def test_choices_below_one_are_refused(choice):
    with pytest.raises(UserError, match="allowed: >= 1"):
        select(open_images("digits", None, "test"), **choice)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("mnits", None, "test"), "data.dataset = mnits: unknown; allowed: digits, cifar10, imagenet"),
        (("digits", None, "val"), "split = val: unknown; allowed: train, test"),
        (("cifar10", None, "test"), "data.root = none: cifar10 is read from a folder"),
        (("cifar10", "/nowhere", "train"), "--data.root /nowhere: no cifar-10-batches-py folder with data_batch_1"),
        (("imagenet", "/nowhere", "test"), "--data.root /nowhere: no train folder with a folder for each class"),
    ],
)
def test_what_is_not_there_is_said_in_one_line(arguments, message):
    with pytest.raises(UserError, match=message) as caught:
        open_images(*arguments)
    assert "\n" not in str(caught.value)
