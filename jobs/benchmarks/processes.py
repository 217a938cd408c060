"""Work in processes of their own, with an environment of their own, that wait for their turn."""

from __future__ import annotations

import importlib
import multiprocessing
import os
from collections.abc import Mapping
from multiprocessing.connection import Connection
from typing import Any


class Worker:
    """A fresh process that calls functions of a module by name, one at a time.

    Args:
        module: whose functions it calls.
        environment: added to this process's own.
    """

    def __init__(self, module: str, environment: Mapping[str, str]) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        before = {key: os.environ.get(key) for key in environment}
        os.environ.update(environment)
        try:
            self._process = context.Process(target=_serve, args=(module, theirs), daemon=True)
            self._process.start()
        finally:
            for key, value in before.items():
                os.environ.pop(key) if value is None else os.environ.update({key: value})

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *error: object) -> None:
        self._process.terminate()
        self._process.join()

    def begin(self, function: str, **arguments: Any) -> None:
        self._pipe.send((function, arguments))

    def result(self) -> Any:
        """What the function begun last returns. Raises RuntimeError with its traceback where it failed."""
        fine, answer = self._pipe.recv()
        if not fine:
            raise RuntimeError(answer)
        return answer

    def call(self, function: str, **arguments: Any) -> Any:
        self.begin(function, **arguments)
        return self.result()


def together(*calls: tuple[Worker, str, dict[str, Any]]) -> list[Any]:
    """Begin all, then wait for all."""
    for worker, function, arguments in calls:
        worker.begin(function, **arguments)
    return [worker.result() for worker, *_ in calls]


def _serve(module: str, pipe: Connection) -> None:
    import traceback

    functions = importlib.import_module(module)
    while True:
        try:
            function, arguments = pipe.recv()
        except EOFError:
            return
        try:
            pipe.send((True, getattr(functions, function)(**arguments)))
        except Exception:  # everything goes back to whoever asked
            pipe.send((False, traceback.format_exc()))
