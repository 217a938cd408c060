"""How things end and where they stand, as files and tables say it."""

from __future__ import annotations

from enum import StrEnum


class Outcome(StrEnum):
    """How the certification of an image ended."""

    CERTIFIED = "certified"
    ABSTAINED = "abstained"
    STOPPED_WRONG = "stopped_wrong"  # not drawn further, as the selected class is not the label; nothing is claimed


class TrialStatus(StrEnum):
    """Where a trial of a search stands."""

    RUNNING = "running"
    FINISHED = "finished"  # trained to its end
    STOPPED = "stopped"  # by the scheduler
    FAILED = "failed"  # could not be trained, and could not be if it were tried again
    LOST = "lost"  # its process or node was lost too often


class RunState(StrEnum):
    """Where a training run stands, between driver and workers."""

    STARTING = "starting"
    RUNNING = "running"
    STOP = "stop"  # the driver asks the workers to save and end
    STOPPED = "stopped"  # they have


class ProblemKind(StrEnum):
    """Whose the problem is that ended a training run."""

    USER = "user"
    STOPPED = "stopped"  # the training cannot continue
