"""Train a classifier: python -m jobs.train RECIPE --out DIR [--workers N] [--section.field VALUE …]

RECIPE is a name (--list), or a .yaml or .json file. The same command again goes on where the run was.
"""

from __future__ import annotations

import time

from acr_ray import __version__
from acr_ray.data import open_images
from acr_ray.models import build_model
from acr_ray.settings import RECIPES, Recipe, UserError, load_recipe
from acr_ray.storage import amend, claim
from acr_ray.tracking.runs import CHECKPOINT_FILES, EpochLog, with_run
from acr_ray.training.methods import build_method
from jobs._main import JobFailed, Parser, entry, given, number, whole
from jobs._progress import EpochLines
from jobs._run import add_run_options, connect, open_tracker, out_folder

SCHEMA_VERSION = 1


def parser(recipe: Recipe) -> Parser:
    found = Parser(prog="python -m jobs.train", description=f"{__doc__}\nOptions of the recipe {recipe.name}:")
    found.add_argument("recipe", metavar="RECIPE", nargs="?", help="name or file")
    found.add_argument("--list", action="store_true", help="list the named recipes and stop")
    found.add_argument(
        "--workers", type=whole(1, 100_000), default=1, metavar="N", help="DDP workers [>= 1; default: 1]"
    )
    found.add_argument(
        "--gpus-per-worker", type=number(0), default=0, metavar="G", help="0: CPU and gloo; else NCCL [default: 0]"
    )
    found.add_argument(
        "--cpus-per-worker", type=whole(1, 1024), default=1, metavar="C", help="cores and torch threads [default: 1]"
    )
    found.add_argument(
        "--seed", type=whole(0), default=0, metavar="S", help="of weights, order, views, noise [default: 0]"
    )
    found.add_argument(
        "--checkpoint-every", type=whole(1), default=1, metavar="K", help="epochs between checkpoints [default: 1]"
    )
    found.add_argument(
        "--max-failures", type=whole(0), default=8, metavar="K", help="lost workers survived in all [default: 8]"
    )
    add_run_options(found)
    fields = recipe.flat()
    found.add_settings(recipe, {name: name for name in fields if name != "name"}, fields)
    return found


def method_in(argv: list[str]) -> str | None:
    """The value of ``--method.name`` where it is given."""
    for option, value in zip(argv, [*argv[1:], None], strict=True):
        if option == "--method.name":
            return value
        if option.startswith("--method.name="):
            return option.partition("=")[2]
    return None


def main(argv: list[str]) -> None:
    named = argv[0] if argv and not argv[0].startswith("-") else None
    recipe = load_recipe(named or "digits")
    if (method := method_in(argv)) is not None:  # first, since each method has options of its own
        recipe = recipe.change({"method.name": method}, recipe.name)
    options = parser(recipe).parse_args(argv)
    if options.list:
        for name, make in RECIPES.items():
            print(f"{name:24} {make().model.architecture:18} sigma {make().training.sigma}")
        return
    if named is None:
        raise UserError(f"RECIPE: missing; give a .yaml or .json file, or one of {', '.join(RECIPES)}")
    recipe = recipe.change(given(recipe, options), recipe.name)
    recipe.check_complete()
    out = out_folder(options)

    images = open_images(recipe.data.dataset, recipe.data.root, "train")
    build_model(recipe.model.architecture, len(images.class_names), images.shape, images.mean, images.std, seed=0)
    build_method(recipe)
    # Imported here: what lies above is checked before Ray is loaded, so mistakes are answered at once.
    from acr_ray.smoothing.engine import BrokenModelError
    from acr_ray.training.loop import TrainingStopped
    from acr_ray.training.run import CHECKPOINT, METRICS, OWNED, Workers, records, run_training

    workers = Workers(options.workers, options.gpus_per_worker, options.cpus_per_worker)
    settings = {"recipe": recipe.name, **recipe.identity(), "seed": options.seed}
    hardware = {"workers": workers.count, "cpus_per_worker": workers.cpus, "gpu": bool(workers.gpus)}
    identity = settings | hardware | {"data": images.fingerprint()}
    record = claim(out, "train", identity, overwrite=options.overwrite, owned=OWNED)
    done = out.is_file("summary.json")
    if done and record.get("tracked"):
        print(f"done before: {out}/checkpoint")
        return
    tracker = open_tracker(options, out)
    tracker.start("train", options.run_name or recipe.name, record.get("mlflow_run_id"))
    if tracker.run_id:
        record = amend(out, record, mlflow_run_id=tracker.run_id)
    tracker.params({**settings, **hardware, "data.root": recipe.data.root, "code_version": __version__})
    tracker.dataset(f"{images.dataset}-train", images.fingerprint(), str(recipe.data.root), "training")
    log, lines = EpochLog(tracker), EpochLines(recipe)

    def work() -> None:
        if done:
            return
        print(f"train {recipe.name}: {len(images)} images, {workers.count} workers, results in {out}", flush=True)
        if before := records(out):
            print(f"going on: {len(before)} of {recipe.training.epochs} epochs are done", flush=True)
        started = time.monotonic()
        connect(options.verbose)
        import ray.train

        try:
            run_training(
                recipe, out, seed=options.seed, workers=workers, fingerprint=images.fingerprint(),
                checkpoint_every=options.checkpoint_every, max_failures=options.max_failures,
                on_epoch=lambda epoch: (lines(epoch), log(epoch)),
            )  # fmt: skip
        except (TrainingStopped, BrokenModelError) as error:
            raise JobFailed(str(error)) from error
        except ray.train.TrainingFailedError as error:
            raise JobFailed(
                f"training broke off ({error}); the same command goes on from the last checkpoint"
            ) from error
        card = out.read_json(f"{CHECKPOINT}/model.json")
        last = records(out)[-1]
        summary = {"schema_version": SCHEMA_VERSION, "recipe": recipe.name, "settings": recipe.model_dump(mode="json")}
        summary |= {"seed": options.seed, **hardware, "data_fingerprint": images.fingerprint(), "last_epoch": last}
        summary |= {"model_sha256": card["sha256"], "seconds": round(time.monotonic() - started, 3)}
        out.write_json("summary.json", summary | {"code_version": __version__, "mlflow_run_id": tracker.run_id})

    with_run(tracker, work)
    for epoch in records(out):
        log(epoch)
    tracker.files(out, ["summary.json", METRICS])
    tracker.files(out / CHECKPOINT, list(CHECKPOINT_FILES), CHECKPOINT)
    tracker.model(out / CHECKPOINT, CHECKPOINT_FILES)
    tracker.finish()
    amend(out, record, tracked=tracker.ok)
    print(f"trained: {out}/{CHECKPOINT}", flush=True)


if __name__ == "__main__":
    entry(main)
