"""What a training would do, as text: steps, time and memory by one measured step."""

from __future__ import annotations

import torch

from acr_ray.cli.drivers.recipe_inputs import check_recipe, open_data
from acr_ray.cli.progress import clock
from acr_ray.cli.session import RunOptions
from acr_ray.data import ImageSet
from acr_ray.settings import Recipe, UserError
from acr_ray.training.dry_run import Measured, measure, plan_of
from acr_ray.training.workers import CheckpointPolicy, Workers


def print_dry_run(recipe: Recipe, options: RunOptions, workers: Workers, policy: CheckpointPolicy) -> None:
    """Print the plan of a run: steps, noise draws, time and memory by a measured step, what is kept and logged.

    Raises:
        UserError: the recipe or its data do not allow the run.
    """
    images = open_data(recipe.data.dataset, recipe.data.root, "train", recipe.data.class_map, recipe.data.options)
    check_recipe(recipe, images)
    t, plan = recipe.training, plan_of(recipe, len(images))
    count = workers.count
    cuda = workers.gpus > 0 and torch.cuda.is_available()
    if not cuda:
        torch.set_num_threads(workers.cpus)
    measured = measure(recipe, images, "cuda" if cuda else "cpu", count)
    rows = [("recipe", f"{recipe.name}: {recipe.method.name}, sigma {t.sigma}, {t.epochs} epochs"), _data(images)]
    rows.append(("model", f"{recipe.model.architecture}, {measured.parameters / 1e6:.2f} M parameters"))
    rows.append(
        (
            "steps",
            f"{t.epochs} epochs of {plan.steps_an_epoch:,} steps of {t.batch_size} noise draws "
            f"({recipe.inputs_per_step} images, m {t.m}), {count} workers: {plan.rows:,} noise draws",
        )
    )
    rows += _recipe_parts(recipe, plan.attack_rows, plan.p_a_rows)
    rows += _time(recipe, plan, measured, count, workers.gpus > 0 and not cuda)
    share = t.batch_size / count / t.accumulate
    memory = measured.state_mb + share * measured.row_mb
    rows.append(
        (
            "memory",
            f"about {memory:,.0f} MB a worker: {measured.state_mb:,.0f} of weights, gradients and momentum, "
            f"{measured.row_mb:.2f} for each of its {share:g} noise draws in a pass",
        )
    )
    between = f", every {policy.minutes:g} minutes within" if policy.minutes else ""
    state = measured.state_mb * 2 / 3
    rows.append(
        (
            "checkpoints",
            f"every {policy.every} epochs{between}; the last {policy.last} and the best are kept, {state:,.0f} MB each",
        )
    )
    store = options.tracking_uri or "MLFLOW_TRACKING_URI or ./mlflow.db" if options.tracking else "not tracked"
    estimates = ", p_a/epoch_K.parquet with a histogram" if recipe.discard.enabled or recipe.reweigh.enabled else ""
    rows.append(("logged", f"loss, accuracy, speed and shares of time an epoch{estimates}, the model; MLflow: {store}"))
    try:
        recipe.check_complete()
    except UserError as error:
        rows.append(("missing", str(error)))
    width = max(len(name) for name, _ in rows)
    for name, text in rows:
        print(f"{name:{width}}  {text}")
    print("dry run: nothing was trained or written")


def _data(images: ImageSet) -> tuple[str, str]:
    shape = "x".join(map(str, images.shape))
    return "data", f"{images.dataset} {images.split}: {len(images):,} images {shape}, {len(images.class_names)} classes"


def _recipe_parts(recipe: Recipe, attack_rows: int, p_a_rows: int) -> list[tuple[str, str]]:
    t, rows = recipe.training, []
    if recipe.discard.enabled or recipe.reweigh.enabled:
        parts = []
        if recipe.discard.enabled:
            d = recipe.discard
            source = d.p_a_file or d.checkpoint or ("a model that you give" if t.e_t == 0 else "the model itself")
            parts.append(f"p_A >= {d.p_t} of {d.draws} draws by {source} at epoch {t.e_t}")
        if recipe.reweigh.enabled:
            parts.append(f"weights of {recipe.reweigh.draws} draws every {recipe.reweigh.every} epochs")
        rows.append(("p_A", f"{'; '.join(parts)}: at most {p_a_rows:,} noise draws"))
    if recipe.attack.enabled:
        a = recipe.attack
        rows.append(
            (
                "attack",
                f"{a.norm}, at most T = {a.steps} steps of {a.epsilon} from epoch {t.e_t} on: at most "
                f"{attack_rows:,} noise draws forward and backward",
            )
        )
    return rows


def _time(recipe: Recipe, plan, measured: Measured, workers: int, elsewhere: bool) -> list[tuple[str, str]]:
    train, attack = plan.rows * measured.train / workers, plan.attack_rows * measured.attack / workers
    p_a = plan.p_a_rows * measured.p_a / workers
    how = f"a step of {measured.rows} noise draws on this machine's {measured.device}"
    warning = "; your workers' GPUs are not here, so this says nothing about them" if elsewhere else ""
    parts = f"training {clock(train)}, attack at most {clock(attack)}, p_A at most {clock(p_a)}"
    rows = [("time", f"at most {clock(train + attack + p_a)} ({parts}), by {how}{warning}")]
    images = plan.rows / recipe.training.m
    readers = max(1, recipe.data.loader_workers)
    reading = images * measured.load / workers / readers
    rows.append(("reading", f"{clock(reading)} with {readers} loader processes a worker, beside the training"))
    return rows
