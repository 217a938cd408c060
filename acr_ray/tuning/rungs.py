"""Where ASHA looks at trials. Pure functions.

Before the last E_t of the space some trials have not begun to differ, or have only just lost their trunk: there a
comparison tells nothing. So the scheduler's time begins at the last E_t, and trials are compared at the same epoch,
where all have the same learning rate.
"""

from __future__ import annotations

from dataclasses import dataclass

REDUCTION = 3  # of the trials at a rung one in so many continues
FIRST = 8  # the first rung lies an eighth of the way from the last fork to the end


@dataclass(frozen=True)
class Rungs:
    """ASHA's schedule in epochs since the last fork.

    Attributes:
        begin: the last E_t of the space.
        most: epochs from there to the end of a trial.
        first: the first rung.
    """

    begin: int
    most: int
    first: int

    @property
    def times(self) -> tuple[int, ...]:
        """first, first * REDUCTION, … before the end."""
        times, at = [], self.first
        while at < self.most:
            times.append(at)
            at *= REDUCTION
        return tuple(times)

    @property
    def epochs(self) -> tuple[int, ...]:
        """The rungs as epochs of a trial."""
        return tuple(self.begin + time for time in self.times)


def place(forks: tuple[int, ...], epochs: int) -> Rungs:
    """The schedule of a space.

    Args:
        forks: the E_t values of the space, none after the last epoch; empty: trials differ from the first epoch on.
        epochs: the fewest epochs of a trial.
    """
    begin = max(forks, default=0)
    most = max(1, epochs - begin)
    return Rungs(begin, most, max(1, -(-most // FIRST)))
