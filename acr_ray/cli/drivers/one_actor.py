"""Questions to one sampler actor, before a run: what only a node with its resources can answer."""

from __future__ import annotations

import time
from typing import Any

from acr_ray.cli.exits import CommandFailed
from acr_ray.cli.ray_session import connect

PATIENCE = 900  # seconds: on a CPU the largest blocks of a large network take minutes


def ask_one_actor(
    arguments: tuple[Any, ...],
    questions: list[tuple[str, tuple[Any, ...]]],
    gpus: float,
    option: str,
    verbose: bool,
    partly: bool = False,
) -> list[Any]:
    """Start one sampler, ask it, and end it.

    Args:
        arguments: of `acr_ray.certification.sampler.Sampler`.
        questions: methods of it and their arguments, asked in this order.
        gpus: of the actor.
        option: that asks for this, for messages.
        partly: if it dies, which it does when its node's memory is full, give the answers that there are.

    Returns:
        The answers.

    Raises:
        CommandFailed: no sampler answered, it died, or the model answers NaN.
        UserError: the actor's machine lacks what drawing needs.
    """
    import ray
    from ray.exceptions import GetTimeoutError, RayActorError, RayTaskError

    from acr_ray.certification.sampler_pool import Actors, own_error, sampler_class
    from acr_ray.smoothing.engine import BrokenModelError

    connect(verbose)
    sampler = sampler_class(Actors.fitting((1, 1), gpus)).remote(*arguments)
    answers: list[Any] = []
    until = time.monotonic() + PATIENCE
    try:
        for name, given in questions:  # one by one: of errors that nobody fetches Ray prints the tracebacks
            question = getattr(sampler, name).remote(*given)
            answers.append(ray.get(question, timeout=max(until - time.monotonic(), 0)))
        return answers
    except RayTaskError as error:
        own = own_error(error)
        raise (CommandFailed(str(own)) if isinstance(own, BrokenModelError) else own) from None
    except RayActorError as error:
        if partly and answers:
            return answers
        raise CommandFailed(
            f"{option}: the sampler died without an answer; is its node's memory full? Try a smaller --block"
        ) from error
    except GetTimeoutError as error:
        raise CommandFailed(
            f"{option}: no sampler has answered for {PATIENCE // 60} minutes; is a node with the resources of one "
            "actor free (ray status)? Or leave it out"
        ) from error
    finally:
        ray.kill(sampler)
