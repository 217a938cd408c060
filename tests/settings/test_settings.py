"""Recipes: what they say, what they refuse, and in which words."""

import json

import pytest

from acr_ray.settings import RECIPES, CertifySettings, Recipe, UserError, derive_seed, load_recipe

# A user's command lines rest on these names; adding one is fine, losing or renaming one is not.
PROMISED_FIELDS = {
    "name", "data.dataset", "data.root", "data.loader_workers", "model.architecture",
    "training.sigma", "training.epochs", "training.batch_size", "training.m", "training.e_t",
    "training.learning_rate", "training.milestones", "training.lr_decay", "training.momentum",
    "training.weight_decay", "training.channels_last", "method.name",
    "discard.enabled", "discard.p_t", "discard.draws", "discard.view", "discard.checkpoint", "discard.p_a_file",
    "reweigh.enabled", "reweigh.every", "reweigh.draws", "reweigh.p_min", "reweigh.alpha", "reweigh.view",
    "attack.enabled", "attack.steps", "attack.epsilon", "attack.norm",
}  # fmt: skip


def test_the_promised_fields_are_there():
    assert set(load_recipe("digits").flat()) >= PROMISED_FIELDS


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_every_named_recipe_is_valid_and_survives_json(name):
    recipe = load_recipe(name)
    assert recipe.name == name
    assert Recipe.build(json.loads(recipe.model_dump_json())) == recipe


@pytest.mark.parametrize(
    "name, m, e_t, p_t, steps, epsilon",
    [
        ("cifar10-0.25", 4, 60, 0.5, 3, 0.25),
        ("cifar10-0.5", 4, 70, 0.4, 6, 0.25),
        ("cifar10-1.0", 4, 60, 0.4, 4, 0.5),
        ("imagenet-0.25", 1, 0, 0.2, 2, 0.5),
        ("imagenet-0.5", 1, 0, 0.2, 2, 1.0),
        ("imagenet-1.0", 2, 0, 0.1, 1, 2.0),
    ],
)
def test_tables_6_and_7(name, m, e_t, p_t, steps, epsilon):
    r = load_recipe(name)
    assert (r.training.m, r.training.e_t, r.discard.p_t, r.attack.steps, r.attack.epsilon) == (
        m,
        e_t,
        p_t,
        steps,
        epsilon,
    )
    assert r.training.sigma == float(name.split("-")[1])
    imagenet = name.startswith("imagenet")
    assert (r.training.epochs, r.training.milestones) == ((90, (30, 60)) if imagenet else (150, (50, 100)))
    assert r.reweigh.enabled is not imagenet and r.discard.enabled and r.attack.enabled
    assert r.discard.draws == (50 if imagenet else 100)
    assert (r.training.learning_rate, r.training.momentum, r.training.weight_decay) == (0.1, 0.9, 1e-4)
    assert r.model.architecture == ("resnet50" if imagenet else "cifar_resnet110")


def test_digits_differ_in_the_three_parts_only():
    ours, plain = load_recipe("digits").flat(), load_recipe("digits-gaussian").flat()
    differing = {key.split(".")[0] for key in ours if ours[key] != plain[key]}
    assert differing == {"name", "discard", "reweigh", "attack"}


@pytest.mark.parametrize(
    "field, value, words",
    [
        ("training.sigma", "0", ["training.sigma", "'0'", "> 0"]),
        ("training.sigma", "-1", ["training.sigma", "> 0"]),
        ("training.sigma", "nan", ["training.sigma"]),
        ("training.sigma", "much", ["training.sigma", "'much'", "number"]),
        ("discard.p_t", "1.5", ["discard.p_t", "0 to 1"]),
        ("discard.p_t", "-0.1", ["discard.p_t", "0 to 1"]),
        ("training.e_t", "60", ["training.e_t", "60", "0 to 59"]),
        ("training.m", "3", ["training.m", "divide", "256"]),
        ("training.m", "0", ["training.m", "1 to 1024"]),
        ("training.milestones", (50, 30), ["training.milestones", "increasing"]),
        ("attack.epsilon", "0", ["attack.epsilon", "> 0"]),
        ("attack.norm", "l7", ["attack.norm", "l2|linf"]),
        ("reweigh.alpha", "1", ["reweigh.alpha", "between 0 and 1"]),
        ("data.dataset", "mnits", ["data.dataset", "digits|cifar10|imagenet"]),
        ("training.epoch", "3", ["training.epoch", "training.epochs"]),
        ("nothing.at_all", "3", ["nothing.at_all", "training.sigma"]),
    ],
)
def test_a_bad_value_names_the_field_the_value_and_the_range(field, value, words):
    with pytest.raises(UserError) as caught:
        load_recipe("digits").change({field: value}, "digits")
    text = str(caught.value)
    assert text.startswith("digits: ") and "\n" not in text
    assert all(word in text for word in words), text


def test_settings_are_frozen():
    with pytest.raises(Exception, match="frozen"):
        load_recipe("digits").training.sigma = 2.0


@pytest.mark.parametrize(
    "suffix, text", [(".json", '{"training": {"sigma": '), (".yaml", "a: [1"), (".yaml", "just text")]
)
def test_a_broken_recipe_file_is_refused(tmp_path, suffix, text):
    path = tmp_path / f"mine{suffix}"
    path.write_text(text)
    with pytest.raises(UserError, match=f"mine{suffix}"):
        load_recipe(str(path))


def test_a_recipe_file_is_a_recipe(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(
        "data: {dataset: digits}\nmodel: {architecture: digits_resnet}\ntraining: {sigma: 0.25, epochs: 3, e_t: 1}\n"
    )
    recipe = load_recipe(str(path))
    assert (recipe.name, recipe.training.sigma, recipe.method.name) == ("mine", 0.25, "gaussian")
    path.write_text(path.read_text() + "attack: {steps: 3, force: 9}\n")
    with pytest.raises(UserError, match=r"mine\.yaml: unknown field attack\.force; known fields: enabled, steps"):
        load_recipe(str(path))
    with pytest.raises(UserError, match="unknown recipe.*digits-gaussian"):
        load_recipe("cifar-0.25")


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"alpha": 0}, ["alpha", "between 0 and 1"]),
        ({"alpha": 1}, ["alpha", "between 0 and 1"]),
        ({"n": 9}, ["n = 9", "alpha = 0.001", ">= 10"]),
        ({"n0": 0}, ["n0", "1 to 100000000"]),
        ({"sigma": 0}, ["sigma", "> 0"]),
        ({"radii": (0.5, 0.25)}, ["radii", "increasing"]),
        ({"every": 100, "max_images": 5}, ["exclude"]),
        ({"split": "validation"}, ["split", "train|test"]),
    ],
)
def test_bad_certification_settings(changes, words):
    with pytest.raises(UserError) as caught:
        CertifySettings.build({"sigma": 0.5, "dataset": "digits"} | changes, "certify")
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_identity_is_what_decides_the_result():
    base = CertifySettings(sigma=0.5, dataset="digits")
    assert base.sha256 == CertifySettings(sigma=0.5, dataset="digits", root="/x", radii=(0.0, 1.0)).sha256
    assert base.sha256 != CertifySettings(sigma=0.5, dataset="digits", n=1000).sha256
    recipe = load_recipe("digits")
    assert recipe.sha256 == recipe.change({"data.root": "/x", "data.loader_workers": 3}).sha256
    assert recipe.sha256 != recipe.change({"reweigh.p_min": 0.8}).sha256


def test_seeds_are_told_apart_and_frozen():
    assert derive_seed(0, "noise", "a", 1) == derive_seed(0, "noise", "a", 1)
    others = {
        derive_seed(0, "a", "bc"),
        derive_seed(0, "ab", "c"),
        derive_seed(0, "abc"),
        derive_seed(0, "1"),
        derive_seed(0, 1),
        derive_seed(1, "1"),
        derive_seed(0),
    }
    assert len(others) == 7 and all(0 <= seed < 2**63 for seed in others)
    assert derive_seed(0, "noise", "digits/0000", "select", 0) == FROZEN


FROZEN = 7643470333793757063


@pytest.mark.parametrize("sigma", [0.25, 0.5, 1.0])
@pytest.mark.parametrize("kind", ["", "gaussian-"])
def test_cifar100_has_cifar10s_values(kind, sigma):
    here, there = (load_recipe(f"{dataset}-{kind}{sigma}").flat() for dataset in ("cifar100", "cifar10"))
    assert {name for name in here if here[name] != there[name]} == {"name", "data.dataset"}


def test_data_of_the_users_own_code_are_a_data_set():
    assert load_recipe("cifar10-0.5").change({"data.dataset": "my_data:images"}).data.dataset == "my_data:images"
    with pytest.raises(UserError, match="data.mean .* give both"):
        load_recipe("digits").change({"data.mean": (0.5,)})
    with pytest.raises(UserError, match="data.resize = 'much': must be default, none or a whole number"):
        load_recipe("digits").change({"data.resize": "much"})
    settings = CertifySettings.build({"sigma": 0.5, "dataset": "folder"})
    assert "size" not in settings.identity() and settings.change({"size": 32}).identity()["size"] == 32
