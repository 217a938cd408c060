"""Reads the field's certificate files: tab separated, ``idx label predict radius correct time``."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from pyarrow import csv

from acr_ray.reporting.counts import counts_from_radius
from acr_ray.reporting.distribution import Distribution
from acr_ray.reporting.run_facts import MOST_CLASSES, MOST_RADIUS
from acr_ray.reporting.sigma_names import sigma_in
from acr_ray.reporting.source import ABSTAINED, Rows, Source
from acr_ray.settings.errors import UserError

COLUMNS = ("idx", "label", "predict", "radius", "correct")
DEFAULT_N, DEFAULT_ALPHA = 100_000, 0.001
#: ImageNet's validation set: the field certifies every 100th of its images.
_IMAGENET_IMAGES = 50_000
_TYPES = {c: pa.float64() if c == "radius" else pa.int64() for c in COLUMNS}


def read_tsv(
    content: bytes, where: str, name: str, sigma: float | None = None, n: int | None = None, alpha: float | None = None
) -> Source:
    """Return the certificates in a file of the field.

    Such files hold radii, not counts, and say nothing of sigma, n or alpha. sigma is taken from the name if it is
    not given (`sigma_names.sigma_in`: ``noise_0.25``, ``sigma_0.25``, …); n and alpha default to the field's 100 000
    and 0.001. p_A of correctly certified images is recovered by inverting the radius; of the others it is only known
    that p_A was not certified to exceed 1/2.

    Args:
        content: the whole file.
        where: its path, for messages.
        name: how to call the source.
        sigma, n, alpha: what the file does not say; ``None`` for the defaults above.

    Raises:
        UserError: names the file and the first line (from 1) that cannot be read or is out of range.
    """
    assumed: list[str] = []
    notes: tuple[str, ...] = ()
    if sigma is None:
        sigma, named = sigma_in(where)
        assumed.append("sigma")
        notes = (f"sigma = {sigma:g}, as its name says ({named})",)
    assumed += [option for option, value in (("n", n), ("alpha", alpha)) if value is None]
    n, alpha = n or DEFAULT_N, alpha or DEFAULT_ALPHA

    columns = _columns(content, where)
    idx, label, predict, radius, correct = (columns[c] for c in COLUMNS)
    _check_values(columns, where)
    is_correct = correct == 1
    count = counts_from_radius(radius[is_correct], sigma, n, alpha)
    p_a = np.full(idx.size, np.nan)
    p_a[is_correct] = count / n
    rows = Rows(idx, label, np.where(predict < 0, ABSTAINED, predict), radius, p_a)
    distribution = Distribution.of_images(p_a, known_from=0.5)
    return Source(name, "tsv", where, sigma, n, alpha, distribution, rows, _planned(idx), False, notes, tuple(assumed))


def _planned(idx: np.ndarray) -> int | None:
    """Return how many images a run on every k-th ImageNet validation image was meant to have; else ``None``."""
    steps = np.diff(np.sort(idx))
    if steps.size == 0 or steps.min() < 2 or not _IMAGENET_IMAGES // 5 <= idx.max() < _IMAGENET_IMAGES:
        return None
    step = int(np.gcd.reduce(steps))
    return -(-(_IMAGENET_IMAGES - int(idx.min()) % step) // step)


def _columns(content: bytes, where: str) -> dict[str, np.ndarray]:
    text = content.removeprefix(b"\xef\xbb\xbf").rstrip(b"\r\n\t ")
    header = text.split(b"\n", 1)[0].rstrip(b"\r").decode(errors="replace").split("\t")
    missing = [c for c in COLUMNS if c not in header]
    if missing:
        raise UserError(f"{where} line 1: column {', '.join(missing)} is missing from the header")
    if b"\n" not in text:
        raise UserError(f"{where} line 1: a header and no certificates below it")
    if content[-1:] not in (b"\n", b"\r") and header[-1] in COLUMNS[:-1]:
        line = text.count(b"\n") + 1  # half a number would read well: 0.5 of 0.529
        raise UserError(f"{where} line {line}: the file ends without a line end, its last number may be cut off")
    try:
        table = csv.read_csv(
            pa.BufferReader(text),
            read_options=csv.ReadOptions(use_threads=False),
            parse_options=csv.ParseOptions(delimiter="\t", quote_char=False, ignore_empty_lines=False),
            convert_options=csv.ConvertOptions(column_types=_TYPES, include_columns=list(COLUMNS), null_values=[]),
        )
    except pa.ArrowInvalid as error:
        raise UserError(_first_bad_line(text, header, where) or f"{where}: {error}") from error
    return {c: table[c].to_numpy() for c in COLUMNS}


def _first_bad_line(text: bytes, header: list[str], where: str) -> str | None:
    """Find the first bad line, slowly: only called once the fast reader has failed."""
    at = {c: header.index(c) for c in COLUMNS}
    for number, line in enumerate(text.decode(errors="replace").split("\n")[1:], start=2):
        cells = line.rstrip("\r").split("\t")
        if len(cells) != len(header):
            return f"{where} line {number}: {len(cells)} columns where the header has {len(header)}"
        for column, position in at.items():
            try:
                (float if column == "radius" else int)(cells[position])
            except ValueError:
                return f"{where} line {number}: {column} is {cells[position]!r}, which is not a number"
    return None


def _check_values(columns: dict[str, np.ndarray], where: str) -> None:
    idx, label, predict, radius, correct = (columns[c] for c in COLUMNS)
    rules = (
        ("idx", idx >= 0, "must not be negative"),
        ("label", (label >= 0) & (label < MOST_CLASSES), f"must not be negative, and below {MOST_CLASSES:,}"),
        ("predict", (predict >= ABSTAINED) & (predict < MOST_CLASSES), "must be a class, or -1 for an abstention"),
        ("radius", (radius >= 0) & (radius <= MOST_RADIUS), f"must be a number from 0 to {MOST_RADIUS:g}"),
        ("radius", (predict != ABSTAINED) | (radius == 0), "but the classifier abstained"),
        ("correct", (correct == 0) | (correct == 1), "must be 0 or 1"),
        ("correct", (correct == 1) == (predict == label), "but predict and label say otherwise"),
    )
    for column, fine, rule in rules:
        if not fine.all():
            row = int(np.argmin(fine))
            raise UserError(f"{where} line {row + 2}: {column} is {columns[column][row]}, {rule}")
    order = np.argsort(idx, kind="stable")
    repeat = np.flatnonzero(np.diff(idx[order]) == 0)
    if repeat.size:
        first, second = order[repeat[0]], order[repeat[0] + 1]
        raise UserError(f"{where} line {second + 2}: idx {idx[second]} was already on line {first + 2}")
