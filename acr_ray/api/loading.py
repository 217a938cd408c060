"""`acr_ray.load`: what a folder holds, as an object."""

from __future__ import annotations

import os

from acr_ray.cli.results import CertifyResult, TrainResult
from acr_ray.cli.smoothed import smoothed_of
from acr_ray.formats.files import MODEL_CARD, RUN, SUMMARY
from acr_ray.settings import UserError
from acr_ray.smoothing.classifier import SmoothedClassifier
from acr_ray.storage import Folder
from acr_ray.storage.run_record import read_run
from acr_ray.storage.summaries import read_summary

RESULTS: dict[str, type[TrainResult] | type[CertifyResult]] = {"train": TrainResult, "certify": CertifyResult}


def load(
    path: str | os.PathLike[str], *, sigma: float | None = None, seed: int = 0, model: str | None = None
) -> SmoothedClassifier | TrainResult | CertifyResult:
    """Open a folder: of results, or a checkpoint.

    Args:
        path: a folder that ``certify`` or ``train`` has left: gives its result. A ``checkpoint/``: gives the smoothed
            classifier. Local, or a URI.
        sigma: of a checkpoint's smoothed classifier, > 0; None: what it was trained on.
        seed: of its noise.
        model: the network of a checkpoint whose network is your own ``module:function``; it is imported only if you
            name it here.

    Raises:
        UserError: there is none of these, or it is damaged or not finished.
    """
    folder = Folder(os.fspath(path), option="path")
    try:
        is_run, is_checkpoint = folder.is_file(RUN), folder.is_file(MODEL_CARD)
        held = ", ".join(folder.names()[:6]) or "nothing"
    except OSError as error:
        raise UserError(f"path {folder}: cannot be read ({error})") from None
    if not is_run:
        if is_checkpoint:
            return smoothed_of(folder.uri, sigma, seed, model)
        raise UserError(f"path {folder}: neither results of certify or train nor a checkpoint, but {held}")
    job = read_run(folder)["job"]
    if job not in RESULTS:
        raise UserError(f"path {folder}: holds a {job} run; load opens {' and '.join(RESULTS)} runs, and checkpoints")
    if not folder.is_file(SUMMARY):
        raise UserError(f"path {folder}: its {job} run is not finished; the call that began it resumes it")
    return RESULTS[job](folder, read_summary(folder, job), done_before=True)
