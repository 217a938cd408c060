"""The new model at the gate: certified already, or drawn as far as the answer needs it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

from acr_ray.certification.audit import Audited, read_run
from acr_ray.certification.coordinator import Coordinator, SamplersLost, StorageLost
from acr_ray.certification.count_store import CountStore
from acr_ray.certification.ledger import Ledger
from acr_ray.certification.run_plan import RunPlan
from acr_ray.cli.drivers.certification_inputs import make_plan, open_checkpoint, open_inputs
from acr_ray.cli.drivers.int8 import int8_of_run
from acr_ray.cli.drivers.samplers import Samplers
from acr_ray.cli.exits import CommandFailed
from acr_ray.cli.notebook import certify_progress
from acr_ray.cli.progress import Waiting, count
from acr_ray.cli.session import RunOptions
from acr_ray.data import ImageSet
from acr_ray.formats.files import INT8
from acr_ray.models import ModelCard
from acr_ray.models.in_process import to_send
from acr_ray.serving.gate import Gate, ImageOutcome
from acr_ray.serving.paired import OPEN
from acr_ray.serving.requirements import Requirement
from acr_ray.settings import CertifySettings, UserError
from acr_ray.settings.imports import ImportChoices
from acr_ray.settings.own_code import is_own
from acr_ray.smoothing.engine import BrokenModelError
from acr_ray.storage import Folder

#: What must be alike for two certifications to be compared.
ALIKE = ("sigma", "n", "n0", "alpha", "stopping", "certificate", "bound")


@dataclass(frozen=True)
class GateQuestion:
    """What is asked.

    Attributes:
        new: a checkpoint, or a folder of certify.
        against: folder of the old model's certification, finished.
        requirements: see `read_requirements`.
        alpha: error probability of the answer, in (0, 1).
        population: about the population that the images come from, not about these images.
        seed: of the order of images.
        root, class_map, dataset: where the images are, for a checkpoint.
        choices: which network it is, if the checkpoint is a file of weights.
        promote: alias of MLflow's registry that moves to the new model if the gate opens.
    """

    new: str
    against: str
    requirements: tuple[Requirement, ...]
    alpha: float
    population: bool
    seed: int
    root: str | None
    class_map: str | None
    dataset: str | None
    choices: ImportChoices
    promote: str | None = None


class NewModel(Protocol):
    """What the gate asks of the new model."""

    model_sha256: str
    evaluations: int

    def identity(self) -> dict[str, object]:
        """Return what decides its certificates."""

    def check_room(self, verbose: bool) -> None:
        """Raise UserError if it could not be drawn."""

    def feed(self, judged: Gate, old: Audited, order: Sequence[int]) -> None:
        """Show the gate image after image until the answer is known, or all are seen."""


class _Known(Exception):
    """The answer is known; no more draws."""


class CertifiedModel:
    """A new model that has been certified already: nothing is drawn."""

    def __init__(self, old: Audited, question: GateQuestion) -> None:
        self._run = new = read_run(Folder(question.new, option="NEW"))
        where = f"NEW {question.new}"
        ours, theirs = old.plan.settings, new.plan.settings
        for field in ALIKE:
            if getattr(ours, field) != getattr(theirs, field):
                raise UserError(
                    f"{where}: {field} is {getattr(theirs, field)}, but {getattr(ours, field)} in {question.against}; "
                    "certify both alike"
                )
        self._place = {name: i for i, name in enumerate(new.plan.names)}
        missing = next((name for name in old.plan.names if self._place.get(name) not in new.store.finished), None)
        if missing is not None:
            raise UserError(f"{where}: {missing} of {question.against} has no certificate there")
        for name, label in zip(old.plan.names, old.plan.labels, strict=True):
            if int(new.plan.labels[self._place[name]]) != int(label):
                raise UserError(f"{where}: {name} has another label than in {question.against}")
        self.model_sha256, self.evaluations = new.plan.model_sha256, 0

    def identity(self) -> dict[str, object]:
        return self._run.plan.identity()

    def check_room(self, verbose: bool) -> None:
        """Nothing is drawn."""

    def feed(self, judged: Gate, old: Audited, order: Sequence[int]) -> None:
        sigma = old.plan.settings.sigma
        for i in order:
            if judged.answer != OPEN:
                break
            label, name = int(old.plan.labels[i]), old.plan.names[i]
            new = self._run.store.finished[self._place[name]]
            pair = (ImageOutcome.of(v, label, sigma) for v in (old.store.finished[i], new))
            judged.add(label, *pair)


class DrawnModel:
    """A new model that is certified as far as the answer needs it, with the old run's settings and noise seeds."""

    def __init__(
        self,
        old: Audited,
        order: Sequence[int],
        question: GateQuestion,
        options: RunOptions,
        out: Folder,
        samplers: Samplers,
    ) -> None:
        self._samplers, self._out = samplers, out
        s = old.plan.settings
        if is_own(s.dataset) and question.dataset != s.dataset:
            raise UserError(
                f"--against {question.against}: its images come from the code {s.dataset}; to run it, name it: "
                f"--dataset {s.dataset}"
            )
        changes = s.model_dump(exclude={"root", "class_map", "max_images", "every", "image_list", "device"})
        changes |= {"root": question.root, "class_map": question.class_map, "device": samplers.device}
        subject = open_checkpoint(question.new, options.mlflow_uri(out), question.choices, changes)
        inputs = open_inputs(subject.card, f"NEW {question.new}", changes, samplers.device)
        place = {name: i for i, name in enumerate(inputs.images.names)}
        absent = next((name for name in old.plan.names if name not in place), None)
        if absent is not None:
            raise UserError(f"--data.root {question.root}: {absent} of {question.against} is not there")
        if list(subject.card.class_names) != list(old.plan.class_names):
            raise UserError(
                f"NEW {question.new}: its classes are other ones, or in another order, than in {question.against}"
            )
        same = inputs.images.subset([place[name] for name in old.plan.names])
        if same.fingerprint() != old.plan.data:
            raise UserError(f"--data.root {question.root}: other images than those of {question.against}")
        self._card: ModelCard = subject.card
        self._model = subject.model
        self._images: ImageSet = inputs.images.subset([place[old.plan.names[i]] for i in order])
        # An int8 network, if the old run's was one.
        self._int8 = int8_of_run(subject, inputs.settings, None, None if options.overwrite else out)
        self._plan: RunPlan = make_plan(inputs.settings, self._images, subject.card, subject.model, self._int8)
        self._named = question.new
        self.model_sha256, self.evaluations = subject.card.sha256, 0

    def identity(self) -> dict[str, object]:
        return self._plan.identity()

    def check_room(self, verbose: bool) -> None:
        self._samplers.check_room(verbose)

    def feed(self, judged: Gate, old: Audited, order: Sequence[int]) -> None:
        """Draw image after image until the answer is known."""
        if self._int8 is not None:
            self._out.write_bytes(INT8, self._int8)
        self._plan.save(self._out)
        ledger, store = self._plan.open(self._out)
        see = _reader(judged, old, order, store)
        try:
            if see() == OPEN:
                self._draw(ledger, store, see)
        finally:
            self.evaluations = store.noise_draws

    def _draw(self, ledger: Ledger, store: CountStore, see: Callable[[], str]) -> None:
        settings: CertifySettings = self._plan.settings
        state = to_send(self._card, self._model)
        lines = certify_progress()
        where = "starting {}" if self._samplers.on_ray else "drawing in this process"
        with (
            self._samplers.pool(self._card, state, settings, f"gate {self._named}", self._int8) as (pool, low, high),
            Waiting() as waiting,
        ):
            rows, shared = settings.rows_of_a_pass, settings.pass_rows is not None
            coordinator = Coordinator(ledger, store, self._images, pool, low, high, rows, shared=shared)
            waiting.begin(where.format(count(high, "actor")))

            def on_progress(progress: Any) -> None:
                if progress.rate:
                    waiting.end()
                lines(progress)
                if see() != OPEN:
                    raise _Known

            try:
                with suppress(_Known):
                    coordinator.run(on_progress)
            except (SamplersLost, StorageLost, BrokenModelError) as error:
                raise CommandFailed(f"{error}; run the same command again to resume") from error


def _reader(judged: Gate, old: Audited, order: Sequence[int], store: CountStore) -> Callable[[], str]:
    """Return what shows the gate all images that are finished, in their order and no further than the first gap.

    Images that need many draws end late; to see the others first would choose among them.
    """
    sigma = old.plan.settings.sigma

    def see() -> str:
        while judged.answer == OPEN and judged.seen < len(order) and judged.seen in store.finished:
            i, new = order[judged.seen], store.finished[judged.seen]
            label = int(old.plan.labels[i])
            pair = (ImageOutcome.of(v, label, sigma) for v in (old.store.finished[i], new))
            judged.add(label, *pair)
        return judged.answer

    return see
