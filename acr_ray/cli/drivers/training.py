"""A training run: from a checked recipe to its checkpoint, summary and MLflow run."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any

from acr_ray import __version__
from acr_ray.cli.command_line import command_line
from acr_ray.cli.drivers.mlflow_reports import log_sample_p_a
from acr_ray.cli.drivers.recipe_inputs import check_recipe, open_data
from acr_ray.cli.drivers.registering import register
from acr_ray.cli.exits import CommandFailed
from acr_ray.cli.notebook import epoch_progress
from acr_ray.cli.progress import Waiting, count
from acr_ray.cli.ray_session import check_workers_fit
from acr_ray.cli.results import TrainResult
from acr_ray.cli.session import RunOptions, open_tracked_run
from acr_ray.formats.files import CHECKPOINT, METRICS, MODEL_CARD, SUMMARY
from acr_ray.settings import Recipe, UserError
from acr_ray.settings.own_code import is_own
from acr_ray.storage import Folder
from acr_ray.storage.run_record import read_run
from acr_ray.storage.summaries import read_summary
from acr_ray.telemetry.watching import EpochMeters
from acr_ray.tracking.runs import CHECKPOINT_FILES, EpochLog, with_run
from acr_ray.training.workers import CheckpointPolicy, Workers

SCHEMA_VERSION = 1


def train(recipe: Recipe, options: RunOptions, workers: Workers, seed: int, policy: CheckpointPolicy) -> TrainResult:
    """Train, or resume the run that the results folder holds; see `acr_ray.cli.commands.train.run`."""
    recipe.check_complete()
    if options.register and not options.tracking:
        raise UserError(f"--register {options.register}: is of MLflow; not with --no-tracking")
    out = options.folder()
    images = open_data(recipe.data.dataset, recipe.data.root, "train", recipe.data.class_map, recipe.data.options)
    contents = check_recipe(recipe, images)
    # Imported here: what lies above is checked before Ray is loaded, so mistakes are answered at once.
    from acr_ray.smoothing.engine import BrokenModelError
    from acr_ray.training.control.channel import ControlChannel
    from acr_ray.training.loop import TrainingStopped, check_decoding
    from acr_ray.training.run import OWNED, run_training

    check_decoding(recipe, images, bool(workers.gpus))
    channel, fingerprint = ControlChannel(out), images.fingerprint()
    settings = {**recipe.identity(contents), "seed": seed}
    hardware = {"workers": workers.text, "cpus_per_worker": workers.cpus, "gpu": bool(workers.gpus)}
    identity = settings | hardware | {"data": fingerprint}
    opened = open_tracked_run(
        options,
        out,
        "train",
        identity,
        OWNED,
        recipe.name,
        check_room=lambda: check_workers_fit(workers, recipe, len(images), options.verbose),
    )
    if opened is None:
        print(f"done before: {out}/{CHECKPOINT}")
        _register_earlier(options, out)
        return TrainResult(out, read_summary(out, "train"), done_before=True)
    tracker = opened.tracker
    # Every option, defaults too; what decides the result again under the names that it has in the run's identity.
    params: dict[str, Any] = {"recipe": recipe.name, **recipe.flat(), **settings, **hardware}
    params |= {f"checkpoints.{name}": value for name, value in asdict(policy).items()}
    tracker.params(params | {"data.root": recipe.data.root, "code_version": __version__})
    tracker.dataset(f"{images.dataset}-train", fingerprint, str(recipe.data.root), "training")
    log, lines = EpochLog(tracker), epoch_progress(recipe)
    waiting = Waiting()
    meters = EpochMeters(f"{recipe.name}:{out.uri.rsplit('/', 1)[-1]}", recipe.training.epochs)

    def on_epoch(record: dict[str, Any]) -> None:
        waiting.end()
        lines(record)
        log(record)
        meters(record, tracker.behind)

    def work() -> None:
        if opened.computed:
            return
        print(
            f"train {recipe.name}: {count(len(images), 'image')}, {count(workers.text, 'worker')}, results in {out}",
            flush=True,
        )
        if before := channel.records():
            print(f"resuming: {len(before)} of {recipe.training.epochs} epochs are done", flush=True)
        started = time.monotonic()
        import ray.train

        waiting.begin(f"starting {count(workers.text, 'worker')}, which train the first epoch")
        try:
            run_training(
                recipe,
                out,
                seed=seed,
                workers=workers,
                fingerprint=fingerprint,
                images=len(images),
                contents=contents,
                policy=policy,
                on_epoch=on_epoch,
                on_note=lambda note: print(note, flush=True),
            )
        except (TrainingStopped, BrokenModelError) as error:
            raise CommandFailed(str(error)) from error
        except ray.train.TrainingFailedError as error:
            raise CommandFailed(
                f"training broke off ({error}); run the same command again to resume from the last checkpoint"
            ) from error
        card = out.read_json(f"{CHECKPOINT}/{MODEL_CARD}")
        summary = {"schema_version": SCHEMA_VERSION, "recipe": recipe.name, "settings": recipe.model_dump(mode="json")}
        summary |= {"seed": seed, **hardware, "data_fingerprint": fingerprint, "last_epoch": channel.records()[-1]}
        summary |= {"model_sha256": card["sha256"], "seconds": round(time.monotonic() - started, 3)}
        out.write_json(SUMMARY, summary | {"code_version": __version__, "mlflow_run_id": tracker.run_id})

    with waiting:
        with_run(tracker, work)
    for record in channel.records():
        log(record)
    tracker.files(out, [SUMMARY, METRICS])
    log_sample_p_a(tracker, out)
    tracker.files(out / CHECKPOINT, list(CHECKPOINT_FILES), CHECKPOINT)
    tracker.model(out / CHECKPOINT, CHECKPOINT_FILES)
    register(tracker, options)
    opened.close()
    _print_end(recipe, out)
    return TrainResult(out, read_summary(out, "train"), done_before=opened.computed)


def _register_earlier(options: RunOptions, out: Folder) -> None:
    """Register the model of a run that is done and logged."""
    if options.register is None or (run_id := read_run(out).get("mlflow_run_id")) is None:
        return
    tracker = options.open_tracker(out)
    tracker.start("train", out.uri.rsplit("/", 1)[-1], run_id)
    register(tracker, options)
    tracker.finish()


def _print_end(recipe: Recipe, out: Folder) -> None:
    data = "" if recipe.data.root is None else f" --data.root {recipe.data.root}"
    if is_own(recipe.data.dataset):  # else it would not be run, for a file alone names it
        data = f" --dataset {recipe.data.dataset}{data}"
    certify = f"{command_line('certify')} {out}{data} --out {out}-certified"
    print(f"trained: {out}/{CHECKPOINT}\nnext: {certify}", flush=True)
