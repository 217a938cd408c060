"""The control channel as files in the run's folder: either side may end and start again, and finds what was said."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel

from acr_ray.formats.files import CONTROL, EVENTS, METRICS, PROBLEM
from acr_ray.formats.states import RunState
from acr_ray.settings import UserError
from acr_ray.settings.documents import check, parse_json
from acr_ray.storage import Folder
from acr_ray.training.control.messages import EpochRecord, Event, Problem


class ControlChannel:
    """What driver and workers of one run tell each other.

    Args:
        out: the run's folder; every worker must see it.
    """

    def __init__(self, out: Folder) -> None:
        self.out = out

    def open(self) -> None:
        """Begin anew: no problem, and workers that have yet to start. The driver calls it before they do."""
        for name in (PROBLEM, CONTROL):  # deleting works on a full disk, too
            self.out.delete(name)
        self.set_state(RunState.STARTING)

    def close(self) -> None:
        """The run is done: nobody listens any more."""
        self.out.delete(CONTROL)

    def state(self) -> RunState:
        """Return where the run stands; `RunState.STARTING` if the file is absent or cannot be read at the moment."""
        try:
            held = self.out.read_json(CONTROL) if self.out.is_file(CONTROL) else {"state": RunState.STARTING}
            return RunState(held["state"])
        except (OSError, KeyError, TypeError, ValueError, UserError):
            return RunState.STARTING

    def set_state(self, state: RunState) -> None:
        """Say where the run stands, if there is room to."""
        try:
            self.out.write_json(CONTROL, {"state": state})
        except OSError as error:
            print(f"{self.out}/{CONTROL} could not be written ({error})", flush=True)

    def report_problem(self, problem: Problem) -> None:
        """Leave why the workers stopped, for the driver. Raises OSError if there is no room."""
        self.out.write_json(PROBLEM, problem.model_dump(mode="json"))

    def has_problem(self) -> bool:
        return self.out.is_file(PROBLEM)

    def take_problem(self) -> Problem | None:
        """Return the problem that the workers have left, and forget it. Raises UserError if the file is damaged."""
        if not self.has_problem():
            return None
        problem = check(Problem, self.out.read_json(PROBLEM), f"{self.out}/{PROBLEM}")
        self.out.delete(PROBLEM)
        return problem

    def write_records(self, history: Sequence[dict[str, Any]]) -> None:
        """Write the records of all epochs done. Raises OSError if there is no room."""
        self.out.write_text(METRICS, "".join(json.dumps(record) + "\n" for record in history))

    def records(self) -> list[dict[str, Any]]:
        """Return the records of the epochs done. Raises UserError naming the line that is damaged."""
        return [record.model_dump() for record in self._lines(METRICS, EpochRecord)]

    def events(self) -> list[str]:
        """Return what the run survived. Raises UserError naming the line that is damaged."""
        return [event.note for event in self._lines(EVENTS, Event)]

    def _lines(self, name: str, schema: type[BaseModel]) -> list[Any]:
        text = self.out.read_text(name) if self.out.is_file(name) else ""
        lines = []
        for number, line in enumerate(text.splitlines(), 1):
            where = f"{self.out}/{name} line {number}"
            try:
                lines.append(check(schema, parse_json(line, where), where))
            except UserError as error:
                raise UserError(
                    f"{error}; delete the file, the same command writes it anew when the run resumes"
                ) from None
        return lines


class EventLog:
    """Lines for the user that survive the worker that wrote them; the driver shows them.

    While the disk is full they wait.
    """

    def __init__(self, out: Folder) -> None:
        self._out = out
        self._lines = out.read_text(EVENTS).splitlines() if out.is_file(EVENTS) else []

    def __call__(self, text: str) -> None:
        print(text, flush=True)
        self._lines.append(json.dumps({"note": text}))
        try:
            self._out.write_text(EVENTS, "".join(f"{line}\n" for line in self._lines))
        except OSError:
            return
