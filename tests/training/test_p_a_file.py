"""p_A of the training samples as files: what discarding and reweighing saw, to be looked at and used again."""

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from acr_ray.data import open_images
from acr_ray.reporting.sample_p_a import p_a_histogram
from acr_ray.settings import UserError, load_recipe
from acr_ray.storage import Folder
from acr_ray.training.group import Group
from acr_ray.training.loop import Hooks, Trainer
from acr_ray.training.p_a_file import read_counts, write_p_a
from acr_ray.training.population import radius_weights

RECIPE = load_recipe("digits").change(
    {"training.epochs": 3, "training.e_t": 1, "training.milestones": (), "discard.p_t": 0.3, "reweigh.every": 1}
)


@pytest.fixture(scope="module")
def images():
    return open_images("digits", None, "train").subset(range(200))


@pytest.fixture(scope="module")
def run(images, tmp_path_factory):
    folder = Folder(tmp_path_factory.mktemp("run"))
    trainer = Trainer(RECIPE, images, 0, Group())
    progress = trainer.progress
    trainer.run(Hooks(after_epoch=lambda: write_p_a(folder, images, RECIPE, progress, progress.history[-1])))
    return folder, trainer


def table_of(folder, epoch):
    return pq.read_table(io.BytesIO(folder.read_bytes(f"p_a/epoch_{epoch}.parquet")))


def test_each_epoch_that_estimates_leaves_a_file(run, images):
    folder, trainer = run
    assert (folder / "p_a").names() == ["epoch_1.parquet", "epoch_2.parquet"]
    first = table_of(folder, 1).to_pandas()
    discard, reweigh = (first[first.purpose == purpose] for purpose in ("discard", "reweigh"))
    assert discard.image.tolist() == list(images.names) and set(discard.draws) == {100}
    assert discard.label.tolist() == images.labels.tolist()
    assert np.allclose(discard.p_a, discard["count"] / 100)
    assert discard.kept.tolist() == (discard.p_a >= 0.3).tolist() and 0 < discard.kept.sum() < 200
    assert reweigh.image.tolist() == discard.image[discard.kept].tolist() and set(reweigh.draws) == {16}
    expected = radius_weights(reweigh["count"].to_numpy(), 16, RECIPE.reweigh.p_min, RECIPE.reweigh.alpha)
    assert np.allclose(reweigh.weight, expected / expected.mean())
    second = table_of(folder, 2).to_pandas()
    assert set(second.purpose) == {"reweigh"}
    assert second["count"].tolist() == trainer.progress.p_a["reweigh"][second.idx].tolist()


def test_a_file_stands_in_for_estimating_again(run, images):
    folder, trainer = run
    path = f"{folder}/p_a/epoch_1.parquet"
    counts = read_counts(path, images, 100)
    assert counts.tolist() == trainer.progress.p_a["discard"].tolist()
    again = Trainer(RECIPE.change({"discard.p_a_file": path}), images, 0, Group())
    again.run()
    ours, theirs = (t.module.state_dict() for t in (again, trainer))
    assert all(np.array_equal(ours[name], theirs[name]) for name in theirs), "the same weights, bit for bit"
    passes = [t.progress.history[1]["forward_passes"] for t in (trainer, again)]
    assert passes[0] - passes[1] == 100 * len(images)


def test_a_file_that_does_not_fit_is_one_line(run, images, tmp_path):
    folder, _ = run
    path = f"{folder}/p_a/epoch_1.parquet"
    table = table_of(folder, 1)
    with pytest.raises(UserError, match="discard.draws is 50"):
        read_counts(path, images, 50)
    with pytest.raises(UserError, match="has no p_A of digits/"):
        read_counts(path, open_images("digits", None, "train"), 100)
    changes = {
        "label": (table.set_column(2, "label", pa.array([9 - v for v in table["label"].to_pylist()])), "another label"),
        "range": (table.set_column(3, "p_a", pa.array([2.0] * len(table))), r"\[0, 1\]"),
        "columns": (table.drop_columns(["draws"]), "no p_A file"),
    }
    for name, (changed, said) in changes.items():
        pq.write_table(changed, tmp_path / name)
        with pytest.raises(UserError, match=said):
            read_counts(str(tmp_path / name), images, 100)
    (tmp_path / "junk").write_bytes(b"junk")
    for name in ("junk", "absent"):
        with pytest.raises(UserError, match=f"discard.p_a_file .*{name}: cannot be read"):
            read_counts(str(tmp_path / name), images, 100)


def test_a_recipe_takes_a_model_or_a_file_but_not_both():
    recipe = load_recipe("imagenet-0.5").change({"data.root": "/data"})
    with pytest.raises(UserError, match="discard.p_a_file FILE"):
        recipe.check_complete()
    recipe.change({"discard.p_a_file": "p.parquet"}).check_complete()
    with pytest.raises(UserError, match="exclude each other"):
        recipe.change({"discard.p_a_file": "p.parquet", "discard.checkpoint": "m"}).check_complete()


def test_the_histogram_is_a_picture_with_a_panel_for_each_estimate(run):
    folder, _ = run
    sizes = {
        e: Image.open(io.BytesIO(p_a_histogram(folder.read_bytes(f"p_a/epoch_{e}.parquet"), "x"))).size for e in (1, 2)
    }
    assert sizes[1][0] > 1.8 * sizes[2][0]
