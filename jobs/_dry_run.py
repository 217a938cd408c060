"""jobs.train --dry-run: what would be done, as text."""

from __future__ import annotations

import argparse

import torch

from acr_ray.data import ImageSet
from acr_ray.settings import Recipe, UserError
from acr_ray.training.dry_run import Measured, measure, plan_of
from jobs._progress import clock


def dry_run(recipe: Recipe, options: argparse.Namespace, images: ImageSet) -> None:
    """Print the plan of a run: steps, evaluations, time and memory by a measured step, what is kept and logged."""
    t, plan = recipe.training, plan_of(recipe, len(images))
    workers = options.workers[0]
    cuda = options.gpus_per_worker > 0 and torch.cuda.is_available()
    if not cuda:
        torch.set_num_threads(options.cpus_per_worker)
    found = measure(recipe, images, "cuda" if cuda else "cpu")
    rows = [("recipe", f"{recipe.name}: {recipe.method.name}, sigma {t.sigma}, {t.epochs} epochs"), _data(images)]
    rows.append(("model", f"{recipe.model.architecture}, {found.parameters / 1e6:.2f} M parameters"))
    rows.append(
        (
            "steps",
            f"{t.epochs} epochs of {plan.steps_an_epoch:,} steps of {t.batch_size} noisy samples "
            f"({recipe.inputs_per_step} images, m {t.m}), {workers} workers: {plan.rows:,} noisy samples",
        )
    )
    rows += _recipe_parts(recipe, plan.attack_rows, plan.p_a_rows)
    rows += _time(recipe, plan, found, workers, options.gpus_per_worker > 0 and not cuda)
    share = t.batch_size / workers / t.accumulate
    memory = found.state_mb + share * found.row_mb
    rows.append(
        ("memory", f"about {memory:,.0f} MB a worker: {found.state_mb:,.0f} of weights, gradients and momentum, "
                   f"{found.row_mb:.2f} for each of its {share:g} noisy samples in a pass")
    )  # fmt: skip
    between = f", every {options.checkpoint_minutes:g} minutes within" if options.checkpoint_minutes else ""
    state = found.state_mb * 2 / 3
    rows.append(
        ("checkpoints", f"every {options.checkpoint_every} epochs{between}; the last {options.keep_checkpoints} and "
                        f"the best are kept, {state:,.0f} MB each")
    )  # fmt: skip
    where = "not tracked" if options.no_tracking else options.tracking_uri or "MLFLOW_TRACKING_URI or ./mlflow.db"
    estimates = ", p_a/epoch_K.parquet with a histogram" if recipe.discard.enabled or recipe.reweigh.enabled else ""
    rows.append(("logged", f"loss, accuracy, speed and shares of time an epoch{estimates}, the model; MLflow: {where}"))
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
    t, found = recipe.training, []
    if recipe.discard.enabled or recipe.reweigh.enabled:
        parts = []
        if recipe.discard.enabled:
            d = recipe.discard
            source = d.p_a_file or d.checkpoint or ("a model that you give" if t.e_t == 0 else "the model itself")
            parts.append(f"p_A >= {d.p_t} of {d.draws} draws by {source} at epoch {t.e_t}")
        if recipe.reweigh.enabled:
            parts.append(f"weights of {recipe.reweigh.draws} draws every {recipe.reweigh.every} epochs")
        found.append(("p_A", f"{'; '.join(parts)}: at most {p_a_rows:,} evaluations"))
    if recipe.attack.enabled:
        a = recipe.attack
        found.append(
            ("attack", f"{a.norm}, at most T = {a.steps} steps of {a.epsilon} from epoch {t.e_t} on: at most "
                       f"{attack_rows:,} rows forward and backward")
        )  # fmt: skip
    return found


def _time(recipe: Recipe, plan, found: Measured, workers: int, elsewhere: bool) -> list[tuple[str, str]]:
    train, attack = plan.rows * found.train / workers, plan.attack_rows * found.attack / workers
    p_a = plan.p_a_rows * found.p_a / workers
    how = f"a step of {found.rows} noisy samples on this machine's {found.device}"
    warning = "; your workers' GPUs are not here, so this says nothing about them" if elsewhere else ""
    parts = f"training {clock(train)}, attack at most {clock(attack)}, p_A at most {clock(p_a)}"
    rows = [("time", f"at most {clock(train + attack + p_a)} ({parts}), by {how}{warning}")]
    images = plan.rows / recipe.training.m
    readers = max(1, recipe.data.loader_workers)
    reading = images * found.load / workers / readers
    rows.append(("reading", f"{clock(reading)} with {readers} loader processes a worker, beside the training"))
    return rows
