"""The service: a model that can be replaced, its scheduler, and questions made of requests. No Ray, no HTTP."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import nn

from acr_ray.models import ModelCard
from acr_ray.serving.asking import P_A, PREDICT, Ask, Reader
from acr_ray.serving.draws import Chunk, Drawer, Stream
from acr_ray.serving.errors import Refused
from acr_ray.serving.meter import Meter, NoMeter
from acr_ray.serving.questions import CertifyQuestion, PAQuestion, Question, TwoClassQuestion
from acr_ray.serving.scheduler import Busy, Closed, Scheduler, Ticket
from acr_ray.serving.seeds import Secret
from acr_ray.serving.served import ServedModel
from acr_ray.settings import UserError
from acr_ray.settings.datasets import grid_of
from acr_ray.settings.serve import ServeSettings
from acr_ray.smoothing.arithmetic import described, prepare
from acr_ray.smoothing.engine import BrokenModelError, SamplingEngine
from acr_ray.smoothing.lattice_law import LatticeLaw, alpha_left, levels_for
from acr_ray.smoothing.pixels import checked_sigma
from acr_ray.smoothing.plan import SELECT, Phase
from acr_ray.smoothing.rules import ONE_CLASS_KIND, Rule
from acr_ray.smoothing.stopping import rule_for

MOST_RULES = 256  # kept at once; one takes some 50 ms to make


class Service:
    """Answers requests about one model at a time.

    Args:
        settings: budgets and limits.
        secret: behind all noise.
        meter: told of the work.
        device: ``"cpu"`` or a CUDA device.
        clock: seconds that only grow.
    """

    def __init__(
        self,
        settings: ServeSettings,
        secret: Secret,
        meter: Meter | None = None,
        device: str = "cpu",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.settings, self._secret, self._device, self._clock = settings, secret, device, clock
        self._meter: Meter = meter or NoMeter()
        self._model: ServedModel | None = None
        self._rules: OrderedDict[tuple[float, float, tuple[float, ...]], Rule] = OrderedDict()
        self._rules_lock = threading.Lock()
        # Rules one at a time: who asks for many different radii waits for them, and nobody else does.
        self._making_rules = ThreadPoolExecutor(1, "acr-ray-rules")

    @property
    def ready(self) -> bool:
        """Whether there is a model."""
        return self._model is not None

    @property
    def alive(self) -> bool:
        """Whether what was asked can be answered; True before there is a model."""
        model = self._model
        return model is None or model.scheduler.alive

    def use(self, network: nn.Module, card: ModelCard, origin: Mapping[str, str]) -> None:
        """Answer from this model from now on. What the one before has begun, it finishes.

        Args:
            network: of the card; copied.
            origin: what answers say of it beside its hash, e.g. its name and version.

        Raises:
            UserError: its sigma is not known, or it answers NaN.
        """
        try:
            sigma = checked_sigma(card.sigma if self.settings.sigma is None else self.settings.sigma)
        except ValueError as error:
            raise UserError(str(error)) from None
        law = self._law(sigma, card)
        ready = prepare(network, device=self._device, dtype=self.settings.dtype)
        levels = None if law is None else law.levels
        engine = SamplingEngine(ready, card.num_classes, sigma, self._device, levels)
        drawer = Drawer(engine, card.shape, self.settings.rows, self.settings.chunk)
        trial = Chunk(
            Stream(torch.full(card.shape, 0.5), "trial"), Phase(SELECT, self.settings.chunk, self.settings.chunk), 0
        )
        for _ in range(3):  # the first pass takes longer than all others
            started = time.perf_counter()
            (drawn,) = drawer.draw([trial])
            if isinstance(drawn, Exception):
                raise UserError(f"model {card.sha256[:16]}…: {drawn}")
            seconds = time.perf_counter() - started
        scheduler = Scheduler(drawer, self.settings.queue, self._meter.drawn, self._clock)
        scheduler.pass_seconds = seconds
        reader = Reader(self.settings, card.shape, card.num_classes)
        arithmetic = described(network, self._device, self.settings.dtype, False)
        model = ServedModel(card, dict(origin), arithmetic, sigma, law, reader, scheduler)
        try:
            for radii in (self.settings.radii, (0.0,)):
                self._rule(sigma, self._left(model, self.settings.alpha), radii)
        except Refused as error:
            raise UserError(error.text) from None
        scheduler.start()
        before, self._model = self._model, model
        if before is not None:
            before.scheduler.close()

    def close(self, wait: bool = True) -> None:
        """Finish what was begun, and take nothing new."""
        model, self._model = self._model, None
        if model is not None:
            model.scheduler.close(wait)

    def describe(self) -> dict[str, Any]:
        """Return what is served, JSON-like. Raises Refused 503 if there is no model."""
        model = self._served()
        return {
            **self._about(model),
            "sigma": model.sigma,
            "classes": list(model.card.class_names),
            "shape": list(model.card.shape),
            "dataset": model.card.dataset,
            "limits": self.settings.model_dump(exclude={"sigma"}),
        }

    async def answer(self, kind: str, content_type: str, body: bytes, query: dict[str, str]) -> dict[str, Any]:
        """Answer a request.

        Args:
            kind: ``predict``, ``certify`` or ``p_a``.
            content_type, body, query: see `asking.Reader.read`.

        Returns:
            ``model``, ``results`` (one an image, in their order) and ``seconds``.

        Raises:
            Refused: 4xx what is wrong with the request, or 429; 500 the model is broken; 503 there is none.
        """
        started = self._clock()
        try:
            found = await self._answer(kind, content_type, body, query, started)
        except Refused as refused:
            self._meter.refused(kind, refused.status)
            raise
        found["seconds"] = round(self._clock() - started, 6)
        self._meter.answered(kind, found["seconds"], found["results"])
        return found

    async def _answer(
        self, kind: str, content_type: str, body: bytes, query: dict[str, str], started: float
    ) -> dict[str, Any]:
        for _ in range(10):
            model = self._served()
            if len(body) > 65536:  # decoding would hold up all others
                ask = await asyncio.to_thread(model.reader.read, kind, content_type, body, query)
            else:
                ask = model.reader.read(kind, content_type, body, query)
            tickets = await self._tickets(model, ask, started)
            try:
                model.scheduler.submit(tickets)
            except Closed:
                continue  # replaced meanwhile: by one whose images may have another shape
            except Busy:
                text = f"{self.settings.queue} images are at work or waiting; try again"
                raise Refused(429, text) from None
            return {"model": self._about(model), "results": await self._results(model, tickets, ask)}
        raise Refused(503, "the model is being replaced; try again")

    async def _tickets(self, model: ServedModel, ask: Ask, started: float) -> list[Ticket]:
        rule = None
        if ask.kind != P_A:
            wanted = (model.sigma, self._left(model, ask.alpha), ask.radii)
            rule = self._known_rule(*wanted)
            if rule is None:
                rule = await asyncio.get_running_loop().run_in_executor(self._making_rules, self._rule, *wanted)
        tickets = []
        for number, image in enumerate(ask.images):
            question = self._question(model, ask, number, rule)
            fresh = os.urandom(16) if ask.fresh else b""
            key = self._secret.key([model.card.sha256, repr(model.sigma), ask.kind], image, fresh)
            tickets.append(Ticket(question, Stream(torch.from_numpy(image), key), started + ask.seconds))
        return tickets

    def _question(self, model: ServedModel, ask: Ask, number: int, rule: Rule | None) -> Question:
        classes, chunk = model.card.num_classes, self.settings.chunk
        if rule is None:
            left = self._left(model, ask.alpha)
            return PAQuestion(classes, ask.labels[number], ask.max_draws, chunk, model.sigma, left)
        kind = CertifyQuestion if self.settings.certificate == ONE_CLASS_KIND else TwoClassQuestion
        return kind(classes, rule, self.settings.n0, ask.max_draws, chunk, model.sigma)

    async def _results(self, model: ServedModel, tickets: list[Ticket], ask: Ask) -> list[dict]:
        try:
            found = await asyncio.gather(*(asyncio.wrap_future(ticket.answer) for ticket in tickets))
        except BrokenModelError:
            raise Refused(500, "the model answers NaN or infinite logits for this image") from None
        finally:
            for ticket in tickets:
                ticket.answer.cancel()  # of a client that has gone; nothing happens to those that are answered
        return [self._shown(model, ask, ticket, one) for ticket, one in zip(tickets, found, strict=True)]

    def _shown(self, model: ServedModel, ask: Ask, ticket: Ticket, result: dict) -> dict:
        facts, question = model.facts(self._most_draws), ticket.question
        result |= {"alpha": ask.alpha, "noise": facts.name, "step": facts.step, "grade": facts.grade}
        result["rounded"] = model.rounded(ticket.stream.image)
        if not isinstance(question, CertifyQuestion):
            return result | {"fresh": ask.fresh}
        label = result["class"]
        result["class_name"] = None if label is None else model.card.class_names[label]
        result["fresh"] = ask.fresh
        if ask.kind == PREDICT:
            del result["radius"]
        elif len(ask.radii) == 1:
            result["radius_asked"] = ask.radii[0]
            result["proved"] = not result["abstained"] and question.radius >= ask.radii[0]
        return result

    @property
    def _most_draws(self) -> int:
        """Of an image, its selection draws included."""
        return self.settings.n0 + self.settings.max_draws

    def _left(self, model: ServedModel, alpha: float) -> float:
        """What the rounding of the noise's law leaves of alpha. Raises Refused 422 if that is nothing."""
        try:
            return alpha_left(alpha, model.facts(self._most_draws).share)
        except ValueError as error:
            raise Refused(422, f"alpha: {error}") from None

    def _law(self, sigma: float, card: ModelCard) -> LatticeLaw | None:
        if self.settings.noise == "float":
            return None
        try:
            return LatticeLaw(sigma, levels_for(sigma, grid_of(card.dataset)))
        except ValueError as error:
            raise UserError(f"--noise lattice: {error}") from None

    def _served(self) -> ServedModel:
        if self._model is None:
            raise Refused(503, "no model is loaded yet, or the service ends; try again")
        return self._model

    @staticmethod
    def _about(model: ServedModel) -> dict[str, str]:
        return {"sha256": model.card.sha256, "arithmetic": model.arithmetic, **model.origin}

    def _known_rule(self, sigma: float, alpha: float, radii: tuple[float, ...]) -> Rule | None:
        with self._rules_lock:
            if (rule := self._rules.get((sigma, alpha, radii))) is not None:
                self._rules.move_to_end((sigma, alpha, radii))
            return rule

    def _rule(self, sigma: float, alpha: float, radii: tuple[float, ...]) -> Rule:
        if (rule := self._known_rule(sigma, alpha, radii)) is not None:
            return rule
        try:
            rule = rule_for(self.settings.rule(sigma, alpha, radii))
        except ValueError as error:  # too few draws for such an alpha
            raise Refused(422, f"alpha: {alpha:g}; {self.settings.max_draws} draws can't prove anything at it") from (
                error
            )
        with self._rules_lock:
            self._rules[(sigma, alpha, radii)] = rule
            while len(self._rules) > MOST_RULES:
                self._rules.popitem(last=False)
        return rule
