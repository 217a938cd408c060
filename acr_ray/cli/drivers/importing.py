"""An import: weights that other code wrote to a model folder of ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from acr_ray import __version__
from acr_ray.cli.drivers.certification_inputs import images_info
from acr_ray.cli.drivers.models import named
from acr_ray.cli.drivers.registering import register
from acr_ray.cli.results import ImportResult
from acr_ray.cli.session import RunOptions
from acr_ray.data.cifar10 import CLASSES
from acr_ray.formats.files import CHECKPOINT, SUMMARY
from acr_ray.models import save_checkpoint
from acr_ray.models.importing import FIELD, ImagesInfo, model_of, read_weights
from acr_ray.settings.imports import ImportChoices
from acr_ray.storage import Folder, open_run
from acr_ray.storage.run_record import amend, find_run
from acr_ray.tracking.runs import CHECKPOINT_FILES

SCHEMA_VERSION = 1
OWNED = (CHECKPOINT, SUMMARY)


def import_model(
    checkpoint: str,
    options: RunOptions,
    settings: Mapping[str, Any],
    choices: ImportChoices,
) -> ImportResult:
    """Write weights as a model folder of ours; see `acr_ray.cli.commands.import_.run`."""
    out = options.folder()
    weights = read_weights(checkpoint, choices)  # before the images: what is refused needs none
    found = model_of(weights, choices, named(_info(settings), choices))
    identity: dict[str, Any] = {"model_sha256": f"sha256:{found.card.sha256}", "architecture": found.card.architecture}
    identity |= {
        "dataset": found.card.dataset,
        "sigma": found.card.sigma,
        "mean": found.card.mean,
        "std": found.card.std,
    }
    find_run(out, "import", identity, overwrite=options.overwrite, owned=OWNED)
    record = open_run(out, "import", identity, overwrite=options.overwrite, owned=OWNED)
    card = save_checkpoint(out / CHECKPOINT, found.model, found.card)
    summary: dict[str, Any] = {"schema_version": SCHEMA_VERSION, "imported": checkpoint, "remarks": list(found.remarks)}
    summary |= {"architecture": card.architecture, "dataset": card.dataset, "sigma": card.sigma}
    summary |= {"classes": card.num_classes, "mean": list(card.mean), "std": list(card.std)}
    summary |= {"model_sha256": card.sha256, "code_version": __version__}
    out.write_json(SUMMARY, summary)
    for line in found.remarks:
        print(line)
    print(f"imported: {out}/{CHECKPOINT}, SHA-256 {card.sha256[:16]}…", flush=True)
    if options.register is not None:
        _register(options, out, record, {"imported": checkpoint, **identity, "code_version": __version__})
    return ImportResult(out, summary)


def _register(options: RunOptions, out: Folder, record: dict[str, Any], params: dict[str, Any]) -> None:
    """Log the model in a run of its own, the same one again if there was one, and register it."""
    tracker = options.open_tracker(out)
    tracker.start("import", options.run_name or f"import {params['architecture']}", record.get("mlflow_run_id"))
    tracker.params(params)
    tracker.files(out, [SUMMARY])
    tracker.files(out / CHECKPOINT, list(CHECKPOINT_FILES), CHECKPOINT)
    tracker.model(out / CHECKPOINT, CHECKPOINT_FILES)
    register(tracker, options)
    tracker.finish()
    amend(out, record, mlflow_run_id=tracker.run_id)


def _info(settings: Mapping[str, Any]) -> ImagesInfo:
    if {name for name, value in settings.items() if value is not None} == {"dataset"} and (
        settings["dataset"] == "cifar10"
    ):  # known without its images
        return ImagesInfo("cifar10", (3, 32, 32), CLASSES, *FIELD["cifar10"])
    return images_info(settings)
