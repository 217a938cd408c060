"""Where the drawing of a certification is done: over actors on Ray, or in this process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from torch import nn

from acr_ray.certification.pool import SamplerPool
from acr_ray.cli.ray_session import check_actors_fit
from acr_ray.models import ModelCard
from acr_ray.settings import CertifySettings


@dataclass(frozen=True)
class Samplers:
    """Where the drawing is done. Changes no count.

    Attributes:
        actors: the fewest and the most sampler actors; None: all that fit.
        gpus: of one; 0: CPU.
        on_ray: False: one sampler, in this process.
    """

    actors: tuple[int, int] | None = None
    gpus: float = 0
    on_ray: bool = True

    @property
    def device(self) -> str:
        """The kind of device: ``cpu`` or ``cuda``."""
        return "cuda" if self.gpus else "cpu"

    def check_room(self, verbose: bool) -> None:
        """Connect to Ray if it is used. Raises UserError if the samplers asked for would never start."""
        if self.on_ray:
            check_actors_fit(self.actors, self.gpus, verbose)

    @contextmanager
    def pool(
        self,
        card: ModelCard,
        state: bytes | nn.Module,
        settings: CertifySettings,
        label: str,
        int8: bytes | None = None,
    ) -> Iterator[tuple[SamplerPool, int, int]]:
        """Make the pool; gives it with the fewest and the most samplers.

        Args:
            int8: the run's int8 network; None: it has none.
        """
        from acr_ray.certification.local_pool import LocalSamplerPool, drawing_here
        from acr_ray.certification.sampler import Arithmetic

        arguments = (card, state, settings.sigma, settings.seed, Arithmetic.of(settings, int8))
        if not self.on_ray:
            with drawing_here():
                yield LocalSamplerPool(*arguments, label), 1, 1
            return
        from acr_ray.certification.sampler_pool import Actors, RaySamplerPool

        actors = Actors.fitting(self.actors, self.gpus)
        yield RaySamplerPool(*arguments, actors, label), actors.low, actors.high
