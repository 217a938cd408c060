"""jobs.train at work."""

from __future__ import annotations

import argparse
import time

from acr_ray import __version__
from acr_ray.formats.files import CHECKPOINT, METRICS
from acr_ray.settings import Recipe
from acr_ray.telemetry.watching import EpochMeters
from acr_ray.tracking.runs import CHECKPOINT_FILES, EpochLog, with_run
from jobs._checks import check_recipe
from jobs._data import open_data
from jobs._main import JobFailed
from jobs._page import log_sample_p_a
from jobs._progress import EpochLines, Waiting, count
from jobs._ready import workers_fit
from jobs._run import begin, out_folder
from jobs._train_options import checkpoint_policy, workers_of

SCHEMA_VERSION = 1


def run(recipe: Recipe, options: argparse.Namespace) -> None:
    if not options.dry_run:
        recipe.check_complete()
        out = out_folder(options)
    images = open_data(recipe.data.dataset, recipe.data.root, "train", recipe.data.class_map)
    contents = check_recipe(recipe, images)
    if options.dry_run:
        from jobs._dry_run import dry_run

        return dry_run(recipe, options, images)
    # Imported here: what lies above is checked before Ray is loaded, so mistakes are answered at once.
    from acr_ray.smoothing.engine import BrokenModelError
    from acr_ray.training.control.channel import ControlChannel
    from acr_ray.training.loop import TrainingStopped
    from acr_ray.training.run import OWNED, run_training

    channel, fingerprint = ControlChannel(out), images.fingerprint()
    workers = workers_of(options)
    settings = {**recipe.identity(contents), "seed": options.seed}
    hardware = {"workers": workers.text, "cpus_per_worker": workers.cpus, "gpu": bool(workers.gpus)}
    identity = settings | hardware | {"data": fingerprint}
    run = begin(
        options, out, "train", identity, OWNED, recipe.name,
        ready=lambda: workers_fit(workers, recipe, len(images), options.verbose),
    )  # fmt: skip
    if run is None:
        print(f"done before: {out}/checkpoint")
        return
    tracker = run.tracker
    params = {"recipe": recipe.name, **settings, **hardware, "data.root": recipe.data.root}
    tracker.params(params | {"code_version": __version__})
    tracker.dataset(f"{images.dataset}-train", fingerprint, str(recipe.data.root), "training")
    log, lines = EpochLog(tracker), EpochLines(recipe)
    waiting = Waiting()
    meters = EpochMeters(f"{recipe.name}:{out.uri.rsplit('/', 1)[-1]}", recipe.training.epochs)

    def told(epoch: dict) -> None:
        waiting.end()
        lines(epoch)
        log(epoch)
        meters(epoch, tracker.behind)

    def work() -> None:
        if run.done:
            return
        print(
            f"train {recipe.name}: {count(len(images), 'image')}, {count(workers.text, 'worker')}, results in {out}",
            flush=True,
        )
        if before := channel.records():
            print(f"going on: {len(before)} of {recipe.training.epochs} epochs are done", flush=True)
        started = time.monotonic()
        import ray.train

        waiting.begin(f"starting {count(workers.text, 'worker')}, which train the first epoch")
        try:
            run_training(
                recipe, out, seed=options.seed, workers=workers, fingerprint=fingerprint,
                images=len(images), contents=contents, policy=checkpoint_policy(options),
                on_epoch=told, on_note=lambda note: print(note, flush=True),
            )  # fmt: skip
        except (TrainingStopped, BrokenModelError) as error:
            raise JobFailed(str(error)) from error
        except ray.train.TrainingFailedError as error:
            raise JobFailed(
                f"training broke off ({error}); the same command goes on from the last checkpoint"
            ) from error
        card = out.read_json(f"{CHECKPOINT}/model.json")
        last = channel.records()[-1]
        summary = {"schema_version": SCHEMA_VERSION, "recipe": recipe.name, "settings": recipe.model_dump(mode="json")}
        summary |= {"seed": options.seed, **hardware, "data_fingerprint": fingerprint, "last_epoch": last}
        summary |= {"model_sha256": card["sha256"], "seconds": round(time.monotonic() - started, 3)}
        out.write_json("summary.json", summary | {"code_version": __version__, "mlflow_run_id": tracker.run_id})

    with waiting:
        with_run(tracker, work)
    for epoch in channel.records():
        log(epoch)
    tracker.files(out, ["summary.json", METRICS])
    log_sample_p_a(tracker, out)
    tracker.files(out / CHECKPOINT, list(CHECKPOINT_FILES), CHECKPOINT)
    tracker.model(out / CHECKPOINT, CHECKPOINT_FILES)
    run.end()
    data = "" if recipe.data.root is None else f" --data.root {recipe.data.root}"
    print(f"trained: {out}/{CHECKPOINT}\nnext: python -m jobs.certify {out}{data} --out {out}-certified", flush=True)
