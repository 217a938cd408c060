"""What a run is asked for beside its recipe: its workers, and its checkpoints. Loads neither torch nor Ray."""

from __future__ import annotations

from dataclasses import dataclass

from acr_ray.settings import UserError


@dataclass(frozen=True)
class Workers:
    """Hardware of a run; decides the last bits of the result, so it is part of the run's identity.

    Attributes:
        count: DDP workers; with ``most`` the fewest that the run continues with.
        most: workers used if the cluster has room for them; None: always ``count``.
    """

    count: int = 1
    gpus: float = 0
    cpus: int = 1
    most: int | None = None

    @property
    def text(self) -> int | str:
        """As the user gives it: ``2``, or ``2:8``."""
        return self.count if self.most is None else f"{self.count}:{self.most}"

    def check_fits(self) -> None:
        """Raises UserError if the cluster could never hold the workers (Ray Train would wait for ever)."""
        import ray

        if self.gpus not in (0, 1):
            raise UserError(
                f"--gpus-per-worker {self.gpus:g}: a worker computes on one GPU of its own; allowed: 0 or 1 "
                "(more GPUs: more --workers)"
            )
        total = ray.cluster_resources()
        for kind, needed in (("CPU", self.count * self.cpus), ("GPU", self.count * self.gpus)):
            if needed > total.get(kind, 0):
                raise UserError(
                    f"--workers {self.text}: need {needed:g} {kind}s, the cluster has {total.get(kind, 0):g}; "
                    "use fewer workers, or a larger cluster"
                )


@dataclass(frozen=True)
class CheckpointPolicy:
    """Checkpoints to resume from, and what else is asked of it; none of it changes what is trained.

    Attributes:
        every: epochs between checkpoints.
        minutes: between checkpoints within an epoch; None: none there.
        last: how many of the last are kept, beside the best.
        best_by: ``loss`` or ``accuracy`` of an epoch's record.
        max_failures: lost workers or nodes survived before giving up.
        resize_seconds: between checks for room for more workers, if their number may change.
        profile: leave traces of a few steps in ``profile/``.
    """

    every: int = 1
    minutes: float | None = None
    last: int = 2
    best_by: str = "loss"
    max_failures: int = 8
    resize_seconds: float = 60.0
    profile: bool = False
