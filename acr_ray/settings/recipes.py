"""Named recipes: each a function that returns the whole typed settings.

Sources: "Average Certified Radius is a Poor Metric for Randomized Smoothing" (ICML 2025), Tables 6 and 7, for the
paper's recipe; Cohen, Rosenfeld & Kolter (2019) for ``gaussian``; for the other methods see `baselines`. The digits
recipes are this project's own.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path

from acr_ray.settings.baselines import BASELINES
from acr_ray.settings.documents import parse_json, parse_yaml, read_text
from acr_ray.settings.errors import UserError
from acr_ray.settings.recipe import (
    AttackSettings,
    DataSettings,
    DiscardSettings,
    ModelSettings,
    Recipe,
    ReweighSettings,
    TrainingSettings,
)

SIGMAS = (0.25, 0.5, 1.0)
MOST_BYTES = 2**20  # of a recipe's file

# sigma: m, E_t, p_t, T, epsilon
TABLE_6_CIFAR10 = {0.25: (4, 60, 0.5, 3, 0.25), 0.5: (4, 70, 0.4, 6, 0.25), 1.0: (4, 60, 0.4, 4, 0.5)}
TABLE_7_IMAGENET = {0.25: (1, 0, 0.2, 2, 0.5), 0.5: (1, 0, 0.2, 2, 1.0), 1.0: (2, 0, 0.1, 1, 2.0)}


def digits_gaussian() -> Recipe:
    """Gaussian noise training of a 7,418-parameter residual net on 8x8 digits, σ = 0.5; seconds on one core."""
    return Recipe(
        name="digits-gaussian",
        data=DataSettings(dataset="digits"),
        model=ModelSettings(architecture="digits_resnet"),
        training=TrainingSettings(sigma=0.5, epochs=60, m=4, e_t=20, milestones=(30, 50)),
    )


def digits() -> Recipe:
    """The paper's whole recipe at the size of the digits; differs from `digits_gaussian` in its three parts only."""
    return digits_gaussian().model_copy(
        update={
            "name": "digits",
            "discard": DiscardSettings(enabled=True, p_t=0.5),
            "reweigh": ReweighSettings(enabled=True, every=5),
            "attack": AttackSettings(enabled=True, steps=3, epsilon=0.25),
        }
    )


def cifar10_gaussian(sigma: float) -> Recipe:
    """Cohen et al.'s Gaussian training of ResNet-110: one noisy copy of each image."""
    return Recipe(
        name=f"cifar10-gaussian-{sigma}",
        data=DataSettings(dataset="cifar10"),
        model=ModelSettings(architecture="cifar_resnet110"),
        training=TrainingSettings(sigma=sigma, epochs=150, m=1, milestones=(50, 100)),
    )


def cifar10(sigma: float) -> Recipe:
    """Return the paper's recipe on CIFAR-10 (Table 6).

    All three parts act from epoch E_t on. With one of them alone the released code differs: without ``--ds_hard`` its
    E_t is 0, and from there on it draws every epoch's samples with replacement, also if nothing is discarded or
    reweighed. Here a part that is switched off leaves the others as they are; for an ablation as it was released add
    ``--training.e_t 0 --training.replacement true``.
    """
    m, e_t, p_t, steps, epsilon = TABLE_6_CIFAR10[sigma]
    base = cifar10_gaussian(sigma)
    return base.model_copy(
        update={
            "name": f"cifar10-{sigma}",
            "training": base.training.model_copy(update={"m": m, "e_t": e_t}),
            "discard": DiscardSettings(enabled=True, p_t=p_t, draws=100),
            "reweigh": ReweighSettings(enabled=True, every=10, draws=16, p_min=0.75, alpha=0.1),
            "attack": AttackSettings(enabled=True, steps=steps, epsilon=epsilon),
        }
    )


def cifar100_gaussian(sigma: float) -> Recipe:
    """Return CIFAR-10's Gaussian training on CIFAR-100; the values are CIFAR-10's, for nobody has published others."""
    return _on_cifar100(cifar10_gaussian(sigma))


def cifar100(sigma: float) -> Recipe:
    """Return the paper's recipe on CIFAR-100, with the values of Table 6, which are CIFAR-10's."""
    return _on_cifar100(cifar10(sigma))


def _on_cifar100(recipe: Recipe) -> Recipe:
    return recipe.change({"data.dataset": "cifar100"}).model_copy(
        update={"name": recipe.name.replace("cifar10", "cifar100")}
    )


def imagenet_gaussian(sigma: float) -> Recipe:
    """Cohen et al.'s Gaussian training of ResNet-50: one noisy copy of each image."""
    return Recipe(
        name=f"imagenet-gaussian-{sigma}",
        data=DataSettings(dataset="imagenet", loader_workers=8),
        model=ModelSettings(architecture="resnet50"),
        training=TrainingSettings(sigma=sigma, epochs=90, m=1, milestones=(30, 60)),
    )


def imagenet(sigma: float) -> Recipe:
    """The paper's recipe on ImageNet (Table 7): discards before epoch 0 by a Gaussian-trained model, no reweighing.

    The learning rate drops at epochs 30 and 60, as the paper says; the released scripts leave ``--lr_milestones`` at
    its default, 50 and 100, so there it drops once: ``--training.milestones 50``.
    """
    m, e_t, p_t, steps, epsilon = TABLE_7_IMAGENET[sigma]
    base = imagenet_gaussian(sigma)
    return base.model_copy(
        update={
            "name": f"imagenet-{sigma}",
            "training": base.training.model_copy(update={"m": m, "e_t": e_t}),
            "discard": DiscardSettings(enabled=True, p_t=p_t, draws=50),
            "attack": AttackSettings(enabled=True, steps=steps, epsilon=epsilon),
        }
    )


def _catalogue() -> dict[str, Callable[[], Recipe]]:
    recipes: dict[str, Callable[[], Recipe]] = {"digits": digits, "digits-gaussian": digits_gaussian}
    for sigma in SIGMAS:
        recipes |= {
            f"cifar10-{sigma}": partial(cifar10, sigma),
            f"cifar10-gaussian-{sigma}": partial(cifar10_gaussian, sigma),
            f"cifar100-{sigma}": partial(cifar100, sigma),
            f"cifar100-gaussian-{sigma}": partial(cifar100_gaussian, sigma),
            f"imagenet-{sigma}": partial(imagenet, sigma),
            f"imagenet-gaussian-{sigma}": partial(imagenet_gaussian, sigma),
        }
    gaussian: dict[str, Callable[[float], Recipe]] = {
        "digits": lambda sigma: digits_gaussian(),
        "cifar10": cifar10_gaussian,
        "imagenet": imagenet_gaussian,
    }
    for method, (make, table) in BASELINES.items():
        for dataset, sigma in table:
            name = f"{dataset}-{method}" + ("" if dataset == "digits" else f"-{sigma}")
            recipes[name] = partial(_baseline, make, gaussian[dataset], sigma)
    return recipes


def _baseline(make: Callable[[Recipe], Recipe], gaussian: Callable[[float], Recipe], sigma: float) -> Recipe:
    return make(gaussian(sigma))


RECIPES = _catalogue()

# Lengths in input units, [0, 1]: values meant in units of 1/255 are the commonest mistake.
LENGTHS = ("training.sigma", "attack.epsilon", "method.epsilon", "method.step_size", "method.target_sigma")


def unusual_values(recipe: Recipe) -> list[str]:
    """A warning for each length that is more than 3 times the largest, or less than an eighth of the least, of all
    named recipes."""
    every = [make().flat() for make in RECIPES.values()]
    warnings = []
    for field, value in recipe.flat().items():
        known = [values[field] for values in every if field in values] if field in LENGTHS else []
        off = not recipe.attack.enabled and field.startswith("attack.")
        if known and not off and not min(known) / 8 <= value <= 3 * max(known):
            warnings.append(
                f"{field} = {value:g}: the named recipes use {min(known):g} to {max(known):g}. Lengths are in units of "
                f"inputs in [0, 1], so {value:g}/255 is {value / 255:.4g}"
            )
    return warnings


def check_addresses(recipe: Recipe, given: Collection[str]) -> None:
    """Raise UserError if a recipe's file names an address that the user has not named.

    A file that somebody else made would else choose whom this machine talks to, and shows its credentials.

    Args:
        recipe: as it was loaded.
        given: dotted fields that the user gave beside it.
    """
    for field, value in recipe.flat().items():
        if isinstance(value, str) and "://" in value and field not in given:
            raise UserError(
                f"{recipe.name}: {field} = {value}: an address in a file is not opened; "
                f"name it again: --{field} {value}"
            )


def load_recipe(name_or_path: str) -> Recipe:
    """Return a named recipe, or one from a YAML or JSON file. Raises UserError naming what is wrong."""
    if name_or_path in RECIPES:
        return RECIPES[name_or_path]()
    path = Path(name_or_path)
    if path.suffix.lower() not in (".yaml", ".yml", ".json"):
        raise UserError(
            f"RECIPE {name_or_path}: unknown recipe; allowed: a .yaml or .json file, or one of {', '.join(RECIPES)}"
        )
    where = f"RECIPE {name_or_path}"
    try:
        text = read_text(path, MOST_BYTES)
    except (OSError, ValueError) as error:
        raise UserError(f"{where}: cannot be read ({error})") from error
    values = parse_json(text, where) if path.suffix.lower() == ".json" else parse_yaml(text, where)
    if not isinstance(values, dict):
        raise UserError(f"{where}: must hold a mapping of sections (name, data, model, training, …)")
    return Recipe.build({"name": path.stem, **values}, str(path))
