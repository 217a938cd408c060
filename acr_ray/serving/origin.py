"""Where a served model comes from, and whether another one should take its place."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass

from acr_ray.models import load_checkpoint
from acr_ray.serving.service import Service
from acr_ray.settings import UserError
from acr_ray.tracking.registry import find_version, has_alias, is_registered
from acr_ray.tracking.runs import resolve_checkpoint


@dataclass(frozen=True)
class Origin:
    """A model as the user names it.

    Attributes:
        location: a folder of ours, ``runs:/RUN_ID``, ``models:/NAME@ALIAS`` or ``models:/NAME/VERSION``.
        tracking_uri: of MLflow.
        architecture: the network, if that is the user's own code; else None.
        poll_seconds: between two looks at where an alias points.
    """

    location: str
    tracking_uri: str
    architecture: str | None = None
    poll_seconds: float = 10.0


class Follower:
    """Gives a service its model, and the next one once the alias moves. A registry that fails changes nothing."""

    def __init__(self, origin: Origin, service: Service) -> None:
        self._origin, self._service = origin, service
        self._said: dict[str, str] = {}
        self._ended = threading.Event()

    def load(self) -> None:
        """Load what the name means now, if the service does not have it yet.

        Raises:
            UserError: it can't be found, or is no model of ours.
        """
        # Of a folder its name alone: where it lies is no client's business.
        location = self._origin.location
        said = {"name": location.rstrip("/").rsplit("/", 1)[-1]}
        if is_registered(location):
            found = find_version(location, self._origin.tracking_uri)
            said |= {"name": found.name, "version": found.version, "alias": found.alias}
            location = f"runs:/{found.run_id}"
        if self._service.ready and said == self._said:
            return
        folder, _ = resolve_checkpoint(location, self._origin.tracking_uri)
        network, card = load_checkpoint(folder, self._origin.architecture)
        self._service.use(network, card, said)
        self._said = said

    def follow(self) -> None:
        """Start to look where the alias points, if the name has one."""
        if has_alias(self._origin.location):
            threading.Thread(target=self._follow, name="acr-ray-alias", daemon=True).start()

    def stop(self) -> None:
        """Look no more."""
        self._ended.set()

    def _follow(self) -> None:
        while not self._ended.wait(self._origin.poll_seconds):
            try:
                self.load()
            except UserError as error:
                logging.getLogger(__name__).warning("the model stays as it is: %s", error)
            except Exception:  # whatever a registry or a broken model does, the model that works goes on
                logging.getLogger(__name__).exception("the model stays as it is")
