"""What travels between the driver of a training run and its workers. No Ray, no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntFlag
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from acr_ray.formats.states import ProblemKind
from acr_ray.settings import Recipe, UserError
from acr_ray.training.errors import TrainingStopped


class Request(IntFlag):
    """What a worker is asked for between two steps."""

    SAVE = 1  # a checkpoint
    LEAVE = 2  # a checkpoint; then this worker's place goes away
    END = 4  # a checkpoint; then the run ends here


@dataclass(frozen=True)
class WorkerConfig:
    """What the driver gives each worker.

    Attributes:
        run: the run's name, for logs.
        recipe: what to train.
        seed: of the run.
        out: URI of the run's folder.
        threads: of torch, a worker.
        checkpoint_every: epochs between checkpoints.
        checkpoint_minutes: between checkpoints within an epoch; None: none there.
        keep_checkpoints: how many of the last are kept, beside the best.
        best_by: ``loss`` or ``accuracy`` of an epoch's record.
        profile: leave traces of a few steps.
        fingerprint: of the training images, as the driver sees them.
        contents: of what the recipe names by path, see `check_named`.
    """

    run: str
    recipe: Recipe
    seed: int
    out: str
    threads: int
    checkpoint_every: int
    checkpoint_minutes: float | None
    keep_checkpoints: int
    best_by: str
    profile: bool
    fingerprint: str
    contents: Mapping[str, Any] = field(default_factory=dict)


class Problem(BaseModel):
    """Why the workers of a run stopped for good."""

    model_config = ConfigDict(frozen=True)

    kind: ProblemKind
    text: str

    @classmethod
    def of(cls, error: Exception) -> Problem:
        kind = ProblemKind.USER if isinstance(error, UserError) else ProblemKind.STOPPED
        return cls(kind=kind, text=str(error))

    def error(self) -> UserError | TrainingStopped:
        """Return the exception to raise in the driver."""
        return UserError(self.text) if self.kind == ProblemKind.USER else TrainingStopped(self.text)


@dataclass(frozen=True)
class WorkerResult:
    """What a worker returns to the driver.

    Attributes:
        model_sha256: of the trained model's weights, on rank 0.
        problem: why it stopped, if it could not leave that as a file.
    """

    model_sha256: str | None = None
    problem: Problem | None = None


class EpochRecord(BaseModel):
    """A line of ``metrics.jsonl``; the other numbers are the method's and the recipe's own."""

    model_config = ConfigDict(extra="allow")

    epoch: Annotated[int, Field(ge=0, strict=True)]


class Event(BaseModel):
    """A line of ``notes.jsonl``: what the run survived."""

    note: Annotated[str, Field(strict=True)]
