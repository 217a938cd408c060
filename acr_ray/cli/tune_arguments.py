"""What a search is asked for, checked as far as it goes without data and cluster."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from acr_ray.settings import Recipe, UserError
from acr_ray.training.workers import Workers
from acr_ray.tuning.validation_settings import ValidationSettings


@dataclass(frozen=True)
class TuneArguments:
    """What a search is asked for.

    What follows from it is a property, worked out when first asked for, since that loads scipy; `check` asks for all.

    Attributes:
        recipe: of the trials, but for the fields of the space.
        trials: how many; >= 1. With ``grid`` at most the grid's points.
        metric: objectives with commas between; ASHA and the best trial go by the first. ``best@R,R,…`` is certified
            accuracy at each radius, and leaves the best recipe for each.
        search: how points are chosen.
        scheduler: whether poor trials end early.
        space: ``FIELD=…`` texts; none: m, E_t, p_t, T and ε around the recipe's values.
        baseline: also train the recipe plainly, with Gaussian noise, to judge the best trial against.
        trunks: train once what trials share before E_t.
        workers: hardware of a trial.
        concurrent: trials at once; None: all that fit.
        seed: of trials, validation images and search; >= 0.
        checkpoint_every: epochs between a trial's checkpoints.
        max_failures: lost processes of a trial survived.
        validation: how trials are measured.
    """

    recipe: Recipe
    trials: int = 12
    metric: str = "acr"
    search: Literal["optuna", "random", "grid"] = "optuna"
    scheduler: Literal["asha", "fifo"] = "asha"
    space: tuple[str, ...] = ()
    baseline: bool = True
    trunks: bool = True
    workers: Workers = field(default_factory=Workers)
    concurrent: int | None = None
    seed: int = 0
    checkpoint_every: int = 5
    max_failures: int = 8
    validation: ValidationSettings = field(default_factory=ValidationSettings)

    def check(self) -> None:
        """Raises UserError naming the option or field that does not fit, and what is allowed."""
        _ = self.objectives, self.domains
        self._check_workers()
        _ = self.rungs, self.trial_count

    @cached_property
    def asked(self) -> tuple[Any, ...]:
        """The objectives that the user named."""
        from acr_ray.tuning.objectives import parse_objectives

        v = self.validation
        return parse_objectives(self.metric, self.recipe.training.sigma, v.n, v.alpha)

    @cached_property
    def best(self) -> tuple[Any, ...]:
        """The objectives that the search leaves a recipe each for: those of ``best@R,R,…``."""
        from acr_ray.tuning.objectives import best_objectives

        return best_objectives(self.metric) if self.asked else ()

    @cached_property
    def objectives(self) -> tuple[Any, ...]:
        """The objectives that every trial logs, those `asked` for first."""
        from acr_ray.tuning.objectives import logged

        return logged(self.asked, self.recipe.training.sigma, self.validation.n, self.validation.alpha)

    @cached_property
    def domains(self) -> Any:
        """The search space, an `acr_ray.tuning.space.Space`."""
        from acr_ray.tuning.space import default_space, parse_space

        return parse_space(list(self.space), self.recipe) if self.space else default_space(self.recipe)

    @cached_property
    def forks(self) -> tuple[int, ...]:
        """The values of E_t at which trials leave their trunk."""
        return self.domains.forks(self.recipe) if self.recipe.changes_at_e_t else ()

    @cached_property
    def rungs(self) -> Any:
        """The epochs at which ASHA compares trials, an `acr_ray.tuning.rungs.Rungs`."""
        from acr_ray.tuning.rungs import place

        return place(self.forks, self.domains.epochs(self.recipe))

    @cached_property
    def trial_count(self) -> int:
        """How many trials there are: those asked for, or the points of a smaller grid."""
        from acr_ray.tuning.space import trial_list

        if self.search != "grid":
            return self.trials
        return len(trial_list(self.domains, self.recipe, "grid", self.trials, self.seed))

    def settings(self) -> dict[str, Any]:
        """How the search goes, for its identity and its summary."""
        return {
            "search": self.search,
            "scheduler": self.scheduler,
            "seed": self.seed,
            "no_trunk": not self.trunks,
            "baseline": self.baseline,
            "validation": self.validation.flat(),
            "workers": self.workers.count,
            "cpus_per_worker": self.workers.cpus,
            "gpu": bool(self.workers.gpus),
        }

    def _check_workers(self) -> None:
        workers, fields = self.workers.count, self.recipe.flat()
        domains = {domain.field: domain.every() for domain in self.domains.domains}
        most = max(domains.get("training.m", (fields["training.m"],)))
        least = min(domains.get("training.batch_size", (fields["training.batch_size"],))) // most
        if least < workers:
            raise UserError(
                f"--workers {workers}: a step has only {least} inputs to share at training.m = {most}; "
                f"allowed: 1 to {least}, or a smaller training.m"
            )
