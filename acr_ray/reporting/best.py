"""The best source for each radius, and what its certified accuracy is worth once the choice is taken into account.

Whoever takes the largest of many certified accuracies takes some luck with it. So the choice is made on one half of the
images and the number on the other, and the same with the halves changed: then every image counts once, for a choice
that it had no part in.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from acr_ray.reporting.pairing import pair
from acr_ray.reporting.source import Rows, Source
from acr_ray.settings.errors import UserError

OPTION = "--best-per-radius"
SEED = 0  # of the halves


@dataclass(frozen=True)
class BestAt:
    """The choice for one radius; shares in [0, 1], nothing rounded.

    Attributes:
        radius: in input units.
        chosen: names of the best sources on the first and on the second half of the images; of equal ones the first.
        held_out: certified accuracy of each on the half that it was not chosen on: of the first choice on the second
            half, of the second choice on the first half.
        cross_fitted: both taken together, so that every image counts once.
        interval: 95 % bootstrap interval of it over images, the choices given.
        naive_source, naive: the best source on all images, and its certified accuracy on the same images.
        is_lower: a chosen source asked for other radii only, so that its certified accuracy is a lower value.
    """

    radius: float
    chosen: tuple[str, str]
    held_out: tuple[float, float]
    cross_fitted: float
    interval: tuple[float, float]
    naive_source: str
    naive: float
    is_lower: bool = False

    @property
    def optimism(self) -> float:
        """How much of the naive number is owed to choosing and reporting on the same images."""
        return self.naive - self.cross_fitted


@dataclass(frozen=True)
class BestPerRadius:
    """The choice for each radius.

    Attributes:
        names: of all sources, in their order.
        images, halves: how many images there are, and how many in each half.
        at: one entry a radius, ascending.
        curve: cross-fitted certified accuracy at ``curve_radii``, for drawing.
        accuracy: of each source there, shape (sources, curve radii).
        left_out: how many of the sources the rest of the report does not show.
    """

    names: tuple[str, ...]
    images: int
    halves: tuple[int, int]
    at: tuple[BestAt, ...]
    curve_radii: NDArray[np.float64]
    curve: NDArray[np.float64]
    accuracy: NDArray[np.float64]
    left_out: int = 0

    @property
    def winners(self) -> frozenset[str]:
        """The names of all sources that are chosen somewhere."""
        return frozenset(name for at in self.at for name in (*at.chosen, at.naive_source))


@dataclass(frozen=True)
class Choice:
    """Positions and shares for k radii: see `BestAt`; arrays of shape (k,), those of the halves (2, k)."""

    chosen: NDArray[np.int64]
    held_out: NDArray[np.float64]
    cross_fitted: NDArray[np.float64]
    naive_chosen: NDArray[np.int64]
    naive: NDArray[np.float64]


def best_per_radius(
    sources: Sequence[Source], radii: Sequence[float], seed: int = SEED, points: int = 200
) -> BestPerRadius:
    """Choose a source for each radius. Sources may differ in sigma, method and N.

    Args:
        sources: at least two, with the same images, alpha and kind of certificate.
        radii: where to choose, >= 0, ascending, in input units.
        seed: of the halves.
        points: radii of the curve to draw.

    Raises:
        UserError: in one line what the sources do not share.
    """
    counted, keys = _aligned(sources)
    half = halves(keys, seed)
    sizes = np.bincount(half, minlength=2)
    if not sizes.all():
        raise UserError(f"{OPTION}: {half.size} images are too few: all of them fall in one half")
    counts = counts_by_half(counted, half, radii)
    choice = choose(counts, sizes)
    names = tuple(s.name for s in sources)
    curve_radii = np.unique([*np.linspace(0.0, max(float(counted.max()), *radii, 1e-9), points), *radii])
    along = counts_by_half(counted, half, curve_radii)
    found = []
    for k, r in enumerate(radii):
        involved = {int(choice.chosen[0, k]), int(choice.chosen[1, k]), int(choice.naive_chosen[k])}
        found.append(
            BestAt(
                radius=float(r),
                chosen=(names[choice.chosen[0, k]], names[choice.chosen[1, k]]),
                held_out=(float(choice.held_out[0, k]), float(choice.held_out[1, k])),
                cross_fitted=float(choice.cross_fitted[k]),
                interval=_interval(float(choice.cross_fitted[k]), half.size),
                naive_source=names[choice.naive_chosen[k]],
                naive=float(choice.naive[k]),
                is_lower=any(sources[s].is_lower_at(float(r)) for s in involved),
            )
        )
    return BestPerRadius(
        names=names,
        images=int(half.size),
        halves=(int(sizes[0]), int(sizes[1])),
        at=tuple(found),
        curve_radii=curve_radii,
        curve=choose(along, sizes).cross_fitted,
        accuracy=along.sum(axis=1) / half.size,
    )


def halves(keys: Sequence[str], seed: int = SEED) -> NDArray[np.int64]:
    """Return for each image, 0 or 1, which half it belongs to: by a hash of its key, so whatever others there are."""
    start = hashlib.blake2b(f"best-per-radius/{seed}/".encode(), digest_size=8)
    found = np.empty(len(keys), dtype=np.int64)
    for k, key in enumerate(keys):
        hashed = start.copy()
        hashed.update(key.encode(errors="surrogatepass"))
        found[k] = hashed.digest()[0] & 1
    return found


def counts_by_half(
    counted: NDArray[np.float64], half: NDArray[np.int64], radii: Sequence[float] | NDArray[np.float64]
) -> NDArray[np.int64]:
    """Return how many images of each half are right with a certified radius of at least each of ``radii``.

    Args:
        counted: (sources, images), certified radius; negative if the image is not certified or wrong.
        half: (images,), 0 or 1.
        radii: ascending.

    Returns:
        int64, (sources, 2, radii).
    """
    at = np.asarray(radii, dtype=np.float64)
    steps = at.size + 1
    found = np.empty((len(counted), 2, at.size), dtype=np.int64)
    for s, held in enumerate(counted):
        reached = np.searchsorted(at, held, side="right")  # how many of the radii it holds at
        by_step = np.bincount(half * steps + reached, minlength=2 * steps).reshape(2, steps)
        found[s] = by_step[:, ::-1].cumsum(axis=1)[:, ::-1][:, 1:]
    return found


def choose(counts: NDArray[np.int64], sizes: NDArray[np.int64]) -> Choice:
    """Choose on each half and count on the other, and choose and count on all images.

    Args:
        counts: of `counts_by_half`, (sources, 2, radii).
        sizes: (2,), images in each half, both at least 1.
    """
    where = np.arange(counts.shape[2])
    chosen = counts.argmax(axis=0)  # of equal sources the first
    other = np.stack([counts[chosen[0], 1, where], counts[chosen[1], 0, where]])
    together = counts.sum(axis=1)
    naive_chosen = together.argmax(axis=0)
    return Choice(
        chosen=chosen,
        held_out=other / sizes[::-1, None],
        cross_fitted=other.sum(axis=0) / sizes.sum(),
        naive_chosen=naive_chosen,
        naive=together[naive_chosen, where] / sizes.sum(),
    )


def _aligned(sources: Sequence[Source]) -> tuple[NDArray[np.float64], list[str]]:
    """Return the counted radius of every image under each source, -1 where it does not count, and the images' keys."""
    if len(sources) < 2:
        raise UserError(f"{OPTION}: needs at least two sources to choose from")
    for source in sources:
        if source.rows is None:
            raise UserError(f"{OPTION}: {source.name} is a curve without images")
    first = sources[0]
    assert first.rows is not None
    counted = np.empty((len(sources), first.rows.idx.size))
    for k, source in enumerate(sources):
        for shown, field in (("alpha", "alpha"), ("certificate", "certificate")):
            ours, theirs = getattr(first, field), getattr(source, field)
            if ours != theirs:
                raise UserError(f"{OPTION}: {shown} differs: {ours} in {first.name}, {theirs} in {source.name}")
        rows = source.rows
        assert rows is not None
        counted[k] = _as_first(first, source, rows)
    named = all(s.rows is not None and s.rows.image is not None for s in sources)
    keys = first.rows.image.to_pylist() if named and first.rows.image is not None else [str(i) for i in first.rows.idx]
    return counted, keys


def _as_first(first: Source, source: Source, rows: Rows) -> NDArray[np.float64]:
    """Return the counted radii of a source in the order of the first one's images."""
    assert first.rows is not None
    pairing = pair(first.rows, rows)
    shared = pairing.a.size
    if shared < max(first.rows.idx.size, rows.idx.size):
        raise UserError(
            f"{OPTION}: needs the same images in every source, but {first.name} has {first.rows.idx.size},"
            f" {source.name} {rows.idx.size}, and {shared} are in both"
        )
    if pairing.labels_differ:
        raise UserError(
            f"{OPTION}: {first.name} and {source.name} label {pairing.labels_differ} of {shared} images differently"
        )
    counted = np.empty(shared)
    counted[pairing.a] = np.where(rows.correct, rows.radius, -1.0)[pairing.b]
    return counted


def _interval(share: float, images: int) -> tuple[float, float]:
    """Return the percentile bootstrap interval of a share: resampling images draws from this binomial."""
    low, high = stats.binom.ppf([0.025, 0.975], images, share) / images
    return float(low), float(high)
