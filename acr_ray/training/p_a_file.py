"""p_A of the training samples as files: ``p_a/epoch_K.parquet``, one row for each sample and estimate of epoch K."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from acr_ray.data import ImageSet
from acr_ray.formats.files import P_A as FOLDER
from acr_ray.formats.tables import EPOCH, P_A, P_A_VERSION, SIGMA, described, parquet_bytes
from acr_ray.settings import Recipe, UserError
from acr_ray.storage import Folder
from acr_ray.storage.tables import check_table_version, read_table
from acr_ray.training.checkpoint import Progress

PURPOSES = ("discard", "reweigh")
MOST_BYTES = 2**30  # of a file


def file_name(epoch: int) -> str:
    return f"epoch_{epoch}.parquet"


def write_p_a(folder: Folder, images: ImageSet, recipe: Recipe, progress: Progress, record: dict[str, Any]) -> None:
    """Write what an epoch has estimated, a table as `acr_ray.formats.tables.P_A`; nothing if it estimated nothing.

    Args:
        folder: of the run; the file goes to ``p_a/`` in it.
        record: the epoch's, as in metrics.jsonl.
    """
    made = [purpose for purpose in PURPOSES if f"{purpose}_p_a_mean" in record]
    if not made:
        return
    weight = np.ones(len(images))
    if progress.population is not None:
        weight, kept = np.zeros(len(images)), progress.population.kept
        weights = progress.population.weights
        weight[kept] = 1.0 if weights is None else weights / weights.mean()
    parts = []
    for purpose in made:
        counts, draws = progress.p_a[purpose], getattr(recipe, purpose).draws
        rows = np.flatnonzero(counts >= 0)
        parts.append(
            pa.table(
                {
                    "image": [images.names[i] for i in rows],
                    "idx": images.idx[rows],
                    "label": images.labels[rows],
                    "p_a": counts[rows] / draws,
                    "count": counts[rows].astype(np.int64),
                    "draws": np.full(len(rows), draws, dtype=np.int64),
                    "purpose": [purpose] * len(rows),
                    "kept": weight[rows] > 0,
                    "weight": weight[rows],
                },
                schema=P_A,
            )
        )
    about = {EPOCH: record["epoch"], SIGMA: recipe.training.sigma}
    table = described(pa.concat_tables(parts), P_A_VERSION, about)
    folder.write_bytes(f"{FOLDER}/{file_name(record['epoch'])}", parquet_bytes(table))


def read_counts(path: str, images: ImageSet, draws: int, sigma: float | None = None) -> NDArray[np.int64]:
    """Label counts of every training sample from such a file.

    Only ``image``, ``label``, ``p_a`` and ``draws`` are needed: a file made elsewhere will do. Of a file with several
    estimates the ``discard`` ones are taken.

    Args:
        path: of the file.
        images: the training set.
        draws: how many there should be for each sample.
        sigma: σ that they should be made at, if the file says one; None: any.

    Returns:
        int64 ``(len(images),)`` in [0, draws].

    Raises:
        UserError: the file can't be read, lacks an image, has another label or number of draws for one, or another σ.
    """
    option = f"discard.p_a_file {path}"
    head, slash, name = path.rpartition("/")
    try:
        content = Folder(head or ("/" if slash else "."), option="discard.p_a_file").read_bytes(name, MOST_BYTES)
    except OSError as error:
        raise UserError(f"{option}: cannot be read ({error})") from None
    needed = {"image": "text", "label": "whole", "p_a": "number", "draws": "whole"}
    table = read_table(content, needed, option, optional={"purpose": "text"}, what="p_A file")
    check_table_version(table, P_A_VERSION, option)
    if "purpose" in table.column_names:
        table = table.filter(pc.equal(table["purpose"], "discard"))
    columns = {name: table[name].to_numpy() for name in ("label", "p_a", "draws")}
    made_at = (table.schema.metadata or {}).get(SIGMA.encode())
    if sigma is not None and made_at is not None and made_at != repr(float(sigma)).encode():
        raise UserError(
            f"{option}: was estimated at sigma {made_at[:20].decode(errors='replace')}, training.sigma is {sigma}; "
            "allowed: a file of the same sigma, or --discard.any_sigma true"
        )
    names = table["image"].to_pylist()
    place = {name: i for i, name in enumerate(names)}
    if len(place) != len(names):
        raise UserError(f"{option}: has more than one p_A of an image")
    absent = [name for name in images.names if name not in place]
    if absent:
        raise UserError(f"{option}: has no p_A of {absent[0]} (and {len(absent) - 1} others of {len(images)})")
    rows = np.array([place[name] for name in images.names])
    wrong = np.flatnonzero(columns["label"][rows] != images.labels)
    if len(wrong):
        raise UserError(f"{option}: has another label for {images.names[wrong[0]]}")
    p_a, draws_held = columns["p_a"][rows].astype(float), columns["draws"][rows]
    if not ((p_a >= 0) & (p_a <= 1)).all():
        raise UserError(f"{option}: p_a must lie in [0, 1]")
    if not (draws_held == draws).all():
        raise UserError(
            f"{option}: from {int(draws_held[0])} draws a sample; discard.draws is {draws}: give the same number"
        )
    return np.rint(p_a * draws).astype(np.int64)
