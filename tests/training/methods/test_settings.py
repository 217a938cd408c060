"""Methods in recipes: names, published settings, changes and mistakes."""

import pytest

from acr_ray.data import open_images
from acr_ray.data.sampling import draw_epoch
from acr_ray.settings import RECIPES, Recipe, UserError, load_recipe
from acr_ray.settings.base import field_of, parse, range_text, type_text
from acr_ray.settings.methods import BUILT_IN
from acr_ray.settings.recipes import unusual_values
from acr_ray.training.group import Group
from acr_ray.training.loop import Trainer

# method: fields that the recipe names, in the order of the table
FROZEN = {
    "cifar10-smoothadv-0.25": dict(m=4, attack="pgd", epsilon=1.0, steps=10, warmup=10, gamma=0.05),
    "cifar10-smoothadv-0.5": dict(m=8, attack="pgd", epsilon=1.0, steps=10, warmup=10, gamma=0.05),
    "cifar10-smoothadv-1.0": dict(m=2, attack="pgd", epsilon=2.0, steps=10, warmup=10, gamma=0.05),
    "imagenet-smoothadv-0.25": dict(m=1, attack="pgd", epsilon=0.5, steps=1, warmup=1, gamma=0.05),
    "imagenet-smoothadv-0.5": dict(m=1, attack="pgd", epsilon=1.0, steps=1, warmup=1, gamma=0.05),
    "imagenet-smoothadv-1.0": dict(m=1, attack="pgd", epsilon=2.0, steps=1, warmup=1, gamma=0.05),
    "cifar10-consistency-0.25": dict(m=2, weight=20.0, eta=0.5),
    "cifar10-consistency-0.5": dict(m=2, weight=10.0, eta=0.5),
    "cifar10-consistency-1.0": dict(m=2, weight=10.0, eta=0.5),
    "imagenet-consistency-0.5": dict(m=2, weight=5.0, eta=0.5),
    "imagenet-consistency-1.0": dict(m=2, weight=5.0, eta=0.1),
    "cifar10-macer-0.25": dict(m=16, weight=12.0, gamma=8.0, beta=16.0, deferred=False),
    "cifar10-macer-0.5": dict(m=16, weight=4.0, gamma=8.0, beta=16.0, deferred=False),
    "cifar10-macer-1.0": dict(m=16, weight=12.0, gamma=8.0, beta=16.0, deferred=True),
    "imagenet-macer-0.25": dict(m=2, weight=6.0, gamma=8.0, beta=16.0, deferred=False),
    "imagenet-macer-0.5": dict(m=2, weight=3.0, gamma=8.0, beta=16.0, deferred=False),
    "imagenet-macer-1.0": dict(m=2, weight=3.0, gamma=8.0, beta=16.0, deferred=False),
    "cifar10-smoothmix-0.25": dict(m=2, eta=5.0, steps=4, step_size=0.5, one_step=False, warmup=10),
    "cifar10-smoothmix-0.5": dict(m=2, eta=5.0, steps=4, step_size=1.0, one_step=True, warmup=10),
    "cifar10-smoothmix-1.0": dict(m=2, eta=5.0, steps=4, step_size=2.0, one_step=True, warmup=10),
    "cifar10-catrs-0.25": dict(m=4, weight=0.5, epsilon=1.0, steps=4, double_from=None),
    "cifar10-catrs-0.5": dict(m=4, weight=1.0, epsilon=1.0, steps=4, double_from=None),
    "cifar10-catrs-1.0": dict(m=4, weight=2.0, epsilon=1.0, steps=4, double_from=None),
    "imagenet-catrs-1.0": dict(m=2, weight=2.0, epsilon=1.0, steps=1, double_from=80),
    "cifar10-stability-0.25": dict(m=1, weight=2.0),
    "cifar10-stability-0.5": dict(m=1, weight=2.0),
    "cifar10-stability-1.0": dict(m=1, weight=1.0),
}
NOT_SPELT_OUT = {"name", "target", "target_sigma", "target_draws", "confidence"}


@pytest.mark.parametrize("name", FROZEN)
def test_published_recipes_are_frozen(name):
    recipe, frozen = load_recipe(name), dict(FROZEN[name])
    dataset, method, sigma = name.split("-")
    assert (recipe.data.dataset, recipe.method.name, recipe.training.sigma) == (dataset, method, float(sigma))
    assert recipe.training.m == frozen.pop("m")
    assert {k: v for k, v in recipe.method.model_dump().items() if k not in NOT_SPELT_OUT} == frozen
    gaussian = load_recipe(f"{dataset}-gaussian-{sigma}")
    same = {k: v for k, v in gaussian.identity().items() if k not in ("method.name", "training.m")}
    if name == "imagenet-catrs-1.0":
        same["training.milestones"] = (30, 60, 85)
    if method == "macer":
        same["training.batch_size"] = 64 * recipe.training.m
    assert same.items() <= recipe.identity().items(), "all else is the Gaussian recipe's"


def test_every_method_has_its_recipes():
    names = {name for name, make in RECIPES.items() if make().method.name != "gaussian"}
    digits = {f"digits-{method}" for method in BUILT_IN if method != "gaussian"}
    assert names == FROZEN.keys() | digits
    assert all(make().name == name for name, make in RECIPES.items())


def test_another_name_brings_its_own_fields_at_their_defaults():
    recipe = load_recipe("digits-macer").change({"method.weight": 7.0})
    other = recipe.change({"method.name": "consistency", "method.eta": 0.1})
    assert other.method == BUILT_IN["consistency"](eta=0.1) and not hasattr(other.method, "beta")
    assert other.change({"method.name": "gaussian"}).identity() == recipe.change({"method.name": "gaussian"}).identity()
    assert recipe.change({"method.name": "macer"}).method.weight == 7.0, "the same name changes nothing"


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_survive_files(name):
    recipe = RECIPES[name]()
    assert Recipe.build(recipe.model_dump(mode="json")) == recipe


@pytest.mark.parametrize(
    "change, said",
    [
        ({"method.name": "mancer"}, "allowed: gaussian, smoothadv"),
        ({"method.name": "a b:C"}, "or your own class as module:Class"),
        ({"method.name": 3}, "allowed: gaussian, smoothadv"),
        ({"method.beta": 3}, "unknown field method.beta"),
        ({"method.name": "macer", "method.beta": -1}, "method.beta = -1"),
        ({"method.name": "macer", "method.eta": 1}, "unknown field method.eta"),
        ({"method.name": "smoothadv", "method.attack": "cw"}, "allowed: pgd|ddn"),
        ({"method.name": "smoothadv", "method.steps": 0}, "allowed: whole number 1 to 1000"),
        ({"method.name": "macer", "method.deferred": True, "training.milestones": ()}, "training.milestones"),
        ({"method.name": "catrs", "method.confidence": "target"}, "needs method.target"),
        ({"method.name": "a:B", "method.options": "text"}, "allowed: JSON object"),
        ({"method.name": "consistency", "method.weight": float("nan")}, "method.weight = nan"),
    ],
)
def test_mistakes_are_one_clear_line(change, said):
    with pytest.raises(UserError) as caught:
        load_recipe("digits-gaussian").change(change, "here")
    text = str(caught.value)
    assert said in text and text.startswith("here: ") and "\n" not in text and "class '" not in text


def test_mistakes_in_files_name_the_field_without_the_unions_inside():
    values = load_recipe("digits-macer").model_dump()
    for method, said in (
        ({"name": "macer", "bet": 1}, "unknown field method.bet; known fields: name, weight, gamma"),
        ({"name": "macer", "gamma": "x"}, "method.gamma = 'x'"),
        ({"name": ["macer"]}, "allowed: gaussian"),
        (3, "method = 3"),
    ):
        with pytest.raises(UserError) as caught:
            Recipe.build({**values, "method": method})
        assert said in str(caught.value)


def test_every_field_can_be_an_option_with_type_range_and_description():
    for name, kind in BUILT_IN.items():
        recipe = load_recipe(f"digits-{name}")
        for field in kind.model_fields:
            info = field_of(recipe, f"method.{field}")
            assert info.description and type_text(info)
            assert range_text(info) or "number" not in type_text(info)
    assert parse(field_of(Recipe, "method.options"), '{"a": [1, 2]}') == {"a": [1, 2]}


@pytest.mark.parametrize("name", [name for name in RECIPES if "macer" in name])
def test_macer_counts_images_not_draws(name):
    recipe = load_recipe(name)
    assert recipe.inputs_per_step == 64 and recipe.training.batch_size == 64 * recipe.training.m


@pytest.mark.parametrize("name", [name for name in RECIPES if "macer" not in name])
def test_all_other_methods_split_256_draws(name):
    assert load_recipe(name).training.batch_size == 256


@pytest.mark.parametrize(
    ("name", "changes", "said"),
    [
        ("digits-smoothadv", {"method.epsilon": 64}, "method.epsilon = 64: the named recipes use"),
        ("digits", {"attack.epsilon": 64}, "attack.epsilon = 64"),
        ("digits", {"training.sigma": 64}, "training.sigma"),
        ("digits", {"training.sigma": 0.001}, "training.sigma = 0.001"),
        ("digits-smoothmix", {"method.step_size": 128}, "128/255 is 0.502"),
    ],
)
def test_lengths_in_other_units_are_warned_of(name, changes, said):
    warned = unusual_values(load_recipe(name).change(changes))
    assert len(warned) == 1 and said in warned[0]


def test_no_named_recipe_is_warned_of():
    assert {name: found for name in RECIPES if (found := unusual_values(load_recipe(name)))} == {}
    off = load_recipe("digits").change({"attack.epsilon": 64, "attack.enabled": False})
    assert unusual_values(off) == []


def test_a_schedule_is_scaled_as_a_whole():
    short = load_recipe("cifar10-0.5").scaled(15)
    assert (short.training.epochs, short.training.e_t, short.training.milestones) == (15, 7, (5, 10))
    assert short.reweigh.every == 1
    assert load_recipe("cifar10-0.5").scaled(150).identity() == load_recipe("cifar10-0.5").identity()
    assert load_recipe("cifar10-smoothmix-0.5").scaled(30).method.warmup == 2
    for name in RECIPES:
        for epochs in (1, 2, 7, 300):
            assert load_recipe(name).scaled(epochs).training.epochs == epochs


def test_all_clashes_are_said_at_once():
    with pytest.raises(UserError) as caught:
        load_recipe("digits").change({"training.epochs": 10, "training.m": 3, "training.warmup_epochs": 10})
    said = str(caught.value)
    assert all(field in said for field in ("training.e_t = 20", "training.m = 3", "training.warmup_epochs = 10"))
    assert "--scale-epochs" in said


def test_attack_alone_can_draw_with_replacement_as_the_released_code_does():
    images = open_images("digits", None, "train").subset(range(120))
    base = {
        "training.epochs": 2,
        "training.e_t": 0,
        "training.milestones": (),
        "discard.enabled": False,
        "reweigh.enabled": False,
    }
    for replacement in (False, True):
        recipe = load_recipe("digits").change(base | {"training.replacement": replacement})
        trainer = Trainer(recipe, images, 0, Group())
        trainer.run()
        assert (trainer.progress.population is not None) == replacement
        drawn = draw_epoch(0, 0, len(images), trainer.progress.population)
        assert (len(set(drawn.tolist())) < len(images)) == replacement
