"""The int8 network of a certification: made once, in the driver, and kept in the run's folder."""

from __future__ import annotations

from acr_ray.certification.local_pool import drawing_here
from acr_ray.certification.quantising import IMAGES, agreement, find_parameters
from acr_ray.cli.drivers.certification_inputs import CertificationInputs, Subject
from acr_ray.data import ImageSet, open_images
from acr_ray.formats.files import INT8
from acr_ray.settings import CertifySettings, UserError
from acr_ray.smoothing.int8_network import int8_problem
from acr_ray.smoothing.int8_parameters import MOST_BYTES, Int8Parameters, sha256_of
from acr_ray.storage import Folder
from acr_ray.storage.run_record import RUN


def int8_of_run(
    subject: Subject, settings: CertifySettings, given: ImageSet | None, out: Folder | None = None
) -> bytes | None:
    """Return a run's int8 network as a file; None where it has none.

    Args:
        given: the split to certify, where it is an object of the user's.
        out: the run's folder, if it may hold one already; None: look nowhere.

    Raises:
        UserError: int8 cannot compute this network, or not here; or there are no images to calibrate it on.
    """
    if settings.dtype != "int8":
        return None
    if problem := int8_problem():
        raise UserError(problem)
    if out is not None and out.is_file(RUN) and out.is_file(INT8):
        content = out.read_bytes(INT8, MOST_BYTES)
        if Int8Parameters.from_bytes(content, f"{out}/{INT8}").about.get("model_sha256") == subject.card.sha256:
            return content
    images = _images(settings, given)
    if images.shape != tuple(subject.card.shape):
        raise UserError(
            f"--dtype int8: the {settings.calibration} images of {images.dataset} are {images.shape}, the model takes "
            f"{tuple(subject.card.shape)}"
        )
    count = min(IMAGES, len(images))
    print(f"int8: calibrating on {count} noisy {settings.calibration} images", flush=True)
    with drawing_here():
        return find_parameters(subject.model, subject.card.sha256, images, settings).to_bytes()


def compared(subject: Subject, inputs: CertificationInputs, int8: bytes) -> dict[str, object]:
    """Compare a run's int8 network with the float32 one; prints how, and returns it."""
    parameters = Int8Parameters.from_bytes(int8, INT8)
    with drawing_here():
        found = agreement(subject.model, parameters, inputs.images, inputs.settings, subject.card.num_classes)
    print(found, flush=True)
    return {"sha256": sha256_of(int8), "calibration": dict(parameters.about), **vars(found)}


def _images(settings: CertifySettings, given: ImageSet | None) -> ImageSet:
    if given is not None:
        if settings.calibration != settings.split:
            raise UserError(
                f"calibration: these images have no {settings.calibration} split at hand; "
                f"calibration={settings.split!r} calibrates int8 on some of them"
            )
        return given
    s = settings
    try:
        return open_images(s.dataset, s.root, s.calibration, s.class_map, s.image_options)
    except UserError as error:
        more = "" if s.calibration == s.split else f" (--calibration {s.split} calibrates on the images certified)"
        raise UserError(f"--dtype int8: needs {s.calibration} images to calibrate on{more}: {error}") from None
