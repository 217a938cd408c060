"""The look at model and images before a certification's first draw: printed, and kept for the summary."""

from __future__ import annotations

from typing import Any

from acr_ray.certification.input_checks import check_inputs
from acr_ray.cli.drivers.certification_inputs import CertificationInputs, Subject
from acr_ray.cli.drivers.models import is_own_model
from acr_ray.models.foreign import is_foreign
from acr_ray.models.in_process import is_in_process
from acr_ray.smoothing.engine import BrokenModelError

OF_FILES = "try --normalization (none, imagenet, MEAN/STD), --class-names FILE, or --data.class_map FILE"
OF_FOLDERS = (
    "try --data.class_map FILE, or other data (--dataset, --data.root, --split); the normalization of a folder is in "
    "its model.json: import the weights again with jobs.import --normalization"
)


def look(subject: Subject, inputs: CertificationInputs) -> dict[str, Any]:
    """Check some images; see `acr_ray.certification.input_checks`. Prints what was seen, and returns it."""
    card = subject.card
    alone = is_in_process(card) or is_own_model(subject.named) or is_foreign(subject.named)
    advice = OF_FILES if alone else OF_FOLDERS
    try:
        seen = check_inputs(subject.model, inputs.images, inputs.settings.sigma, card.num_classes, advice)
    except BrokenModelError as error:  # the samplers will say at which image
        warning = f"{error} on some of the first images"
        print(f"warning: {warning}", flush=True)
        return {"warnings": [warning]}
    print("\n".join(seen.lines()), flush=True)
    return seen.as_json()
