"""From a request's bytes to what is asked. Everything that is wrong with it is one `Refused`, 4xx."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError

from acr_ray.serving.errors import Refused
from acr_ray.serving.pictures import Pictures
from acr_ray.settings.base import Settings
from acr_ray.settings.certify import MOST_RADIUS
from acr_ray.settings.serve import LEAST_ALPHA, ServeSettings
from acr_ray.smoothing.rules import ONE_CLASS_KIND

JSON, NPY, IMAGES = "application/json", "application/x-npy", ("image/png", "image/jpeg")
PREDICT, CERTIFY, P_A = "predict", "certify", "p_a"
#: Noise draws of `P_A` if a client names no number.
P_A_DRAWS = 1000
LEAST_DRAWS = 20  # the rule's first look


class Options(Settings):
    """What a client may say beside the images; None: the server's."""

    max_draws: int | None = Field(None, ge=LEAST_DRAWS)
    deadline_ms: int | None = Field(None, ge=1)
    alpha: float | None = Field(None, ge=LEAST_ALPHA, lt=1)
    fresh: bool = False


class CertifyOptions(Options):
    radius: float | None = Field(None, ge=0, le=MOST_RADIUS)


class PAOptions(Options):
    label: int | tuple[int, ...]


OPTIONS: dict[str, type[Options]] = {PREDICT: Options, CERTIFY: CertifyOptions, P_A: PAOptions}


@dataclass(frozen=True)
class Ask:
    """A request that can be answered.

    Attributes:
        kind: ``predict``, ``certify`` or ``p_a``.
        images: at least one, ``(C, H, W)`` float32 in [0, 1].
        max_draws: noise draws behind each answer, at most.
        seconds: until the answers are due.
        alpha: probability that one answer is wrong.
        radii: to prove, increasing; empty for ``p_a``.
        fresh: whether the noise is to be new.
        labels: one an image for ``p_a``; else empty.
    """

    kind: str
    images: list[NDArray[np.float32]]
    max_draws: int
    seconds: float
    alpha: float
    radii: tuple[float, ...] = ()
    fresh: bool = False
    labels: tuple[int, ...] = ()


class Reader:
    """Reads requests for one model.

    Args:
        settings: of the service.
        shape: (C, H, W) that the model takes.
        classes: of the model.
    """

    def __init__(self, settings: ServeSettings, shape: tuple[int, int, int], classes: int) -> None:
        self._settings, self._classes = settings, classes
        self._pictures = Pictures(shape, settings.pixels)

    def read(self, kind: str, content_type: str, body: bytes, query: Mapping[str, str]) -> Ask:
        """Return what is asked.

        Args:
            kind: which question.
            content_type: ``application/json``; ``image/png`` or ``image/jpeg``, the body is the image; or
                ``application/x-npy``, the body is an array.
            body: of the request.
            query: the options, unless the body is JSON, which holds them.

        Raises:
            Refused: 400 to 422.
        """
        media = content_type.partition(";")[0].strip().lower()
        if media == JSON:
            images, options = self._from_json(body, query)
        elif media in IMAGES:
            images, options = [self._pictures.decoded(body, "the body")], dict(query)
        elif media == NPY:
            images, options = self._pictures.from_npy(body, self._settings.images), dict(query)
        else:
            allowed = ", ".join((JSON, *IMAGES, NPY))
            raise Refused(415, f"Content-Type: {media[:60] or 'missing'}; allowed: {allowed}")
        return self._ask(kind, images, options, media == JSON)

    def _from_json(self, body: bytes, query: Mapping[str, str]) -> tuple[list[NDArray[np.float32]], dict[str, Any]]:
        if query:
            raise Refused(422, f"{next(iter(query))}: of a JSON request options stand in the body, not in the address")
        try:
            values = json.loads(body, parse_constant=_no_constant)
        except RecursionError:
            raise Refused(400, "the body: nested too deeply") from None
        except ValueError as error:  # UnicodeDecodeError is one
            raise Refused(400, f"the body: is no JSON ({error})") from None
        if not isinstance(values, dict):
            raise Refused(422, "the body: must be an object with image or images")
        given = {key: values.pop(key) for key in ("image", "images") if key in values}
        if len(given) != 1:
            raise Refused(422, "the body: needs image (one) or images (a list), not both")
        ((name, found),) = given.items()
        if name == "images" and not isinstance(found, list):
            raise Refused(422, "images: must be a list")
        specs = found if name == "images" else [found]
        self._check_number(len(specs))
        names = ["image"] if name == "image" else [f"images[{i}]" for i in range(len(specs))]
        return [self._pictures.from_json(one, name) for one, name in zip(specs, names, strict=True)], values

    def _check_number(self, images: int) -> None:
        if not 1 <= images <= self._settings.images:
            raise Refused(422, f"images: {images}; allowed: 1 to {self._settings.images}")

    def _ask(self, kind: str, images: list[NDArray[np.float32]], values: dict[str, Any], strict: bool) -> Ask:
        self._check_number(len(images))
        server, options = self._settings, _validated(OPTIONS[kind], values, strict)
        most = P_A_DRAWS if kind == P_A else server.max_draws
        draws = self._at_most("max_draws", options.max_draws, server.max_draws, min(most, server.max_draws))
        deadline = self._at_most("deadline_ms", options.deadline_ms, server.deadline_ms, server.deadline_ms)
        alpha = self._at_most("alpha", options.alpha, server.alpha, server.alpha)
        if kind != P_A and alpha != server.alpha and server.certificate != ONE_CLASS_KIND:
            # Its boundaries take seconds to compute, in which others would get fewer draws.
            raise Refused(422, f"alpha: {alpha:g}; this server's {server.certificate} answers are at {server.alpha:g}")
        if options.fresh and not server.fresh:
            raise Refused(422, "fresh: not allowed by this server; the same image has the same noise here")
        radii: tuple[float, ...] = (0.0,) if kind == PREDICT else ()
        if isinstance(options, CertifyOptions):
            radii = server.radii if options.radius is None else (options.radius,)
        labels = self._labels(options, len(images)) if isinstance(options, PAOptions) else ()
        return Ask(kind, images, int(draws), deadline / 1000, float(alpha), radii, options.fresh, labels)

    @staticmethod
    def _at_most(option: str, value: float | None, most: float, default: float) -> float:
        if value is None:
            return default
        if value > most:
            raise Refused(422, f"{option}: {value:g}; this server allows at most {most:g}")
        return value

    def _labels(self, options: PAOptions, images: int) -> tuple[int, ...]:
        labels = options.label if isinstance(options.label, tuple) else (options.label,) * images
        if len(labels) != images:
            raise Refused(422, f"label: {len(labels)} for {images} images; give one for all, or one for each")
        for label in labels:
            if not 0 <= label < self._classes:
                raise Refused(422, f"label: {label}; the model has classes 0 to {self._classes - 1}")
        return labels


def _validated(kind: type[Options], values: dict[str, Any], strict: bool) -> Options:
    """The options, of JSON with its types, of an address as text."""
    if isinstance(values.get("label"), list):
        values = values | {"label": tuple(values["label"])}
    try:
        return kind.model_validate(values, strict=strict)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        name = str(problem["loc"][0]) if problem["loc"] else "the options"
        if problem["type"] == "extra_forbidden":
            known = ", ".join(kind.model_fields)
            raise Refused(422, f"{name[:60]}: unknown; allowed beside the images: {known}") from None
        if problem["type"] == "missing":
            raise Refused(422, f"{name}: missing") from None
        raise Refused(422, f"{name}: {repr(problem['input'])[:60]}; {problem['msg'].lower()}") from None


def _no_constant(text: str) -> float:
    raise ValueError(f"{text} is no number of JSON")
