"""Reads ``certificates.parquet``: counts in, radii derived; from stored bounds if counts alone don't give them."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from acr_ray.formats.states import Outcome
from acr_ray.formats.tables import CERTIFICATES_VERSION, SUMMARY
from acr_ray.reporting.distribution import Distribution
from acr_ray.reporting.noise import NOISE_COLUMNS, noise_of
from acr_ray.reporting.run_facts import MOST_CLASSES, MOST_DRAWS, MOST_SIGMA, check_run_facts
from acr_ray.reporting.source import ABSTAINED, DEFAULT_BAND, GRIDS, Rows, Source
from acr_ray.reporting.stopped import BOUNDS, check_bounds, notes
from acr_ray.settings.errors import UserError
from acr_ray.smoothing.bounds import lower_bound, radius
from acr_ray.smoothing.rules import PLAIN, TWO_CLASS
from acr_ray.smoothing.two_class import two_class_p_lower
from acr_ray.storage.tables import check_table_version, read_table, table_metadata

MODEL = "model_sha256"  # says whether two sources are the same classifier
_INTEGERS = ("idx", "label", "predicted", "count_top", "count_label", "n")
COLUMNS = {
    "image": "text",
    **dict.fromkeys(_INTEGERS, "whole"),
    "outcome": "text",
    "sigma": "number",
    "alpha": "number",
    "bound": "text",
}
SECOND = "count_second"  # what two-class radii need; files older than it lack it
P_LOWER = "p_lower"  # the stored bound; Clopper-Pearson's can be derived if a file lacks it


def read_certificates(content: bytes, where: str, name: str, run_summary: dict | None = None) -> Source:
    """Return the certificates of one run.

    Args:
        content: the whole file.
        where: its path, for messages.
        name: how to call the source.
        run_summary: the run's ``summary.json``, used if the file carries no summary of its own.

    Raises:
        UserError: not Parquet, a column is missing, a value is out of its range, an image appears twice,
            rows differ in sigma, alpha or bound, or a stored bound contradicts its counts. Names the file and the
            row (from 0).
    """
    table, summary = _table(content, where)
    if table.num_rows == 0:
        raise UserError(f"{where}: holds no certificates")
    columns = {c: table[c].to_numpy() for c in (*_INTEGERS, "sigma", "alpha")}
    sigma, alpha = (_single(columns[c], c, where) for c in ("sigma", "alpha"))
    _check(0 < sigma <= MOST_SIGMA, f"{where}: sigma is {sigma:g}, must be positive and at most {MOST_SIGMA}")
    _check(0 < alpha < 1, f"{where}: alpha is {alpha}, must lie in (0, 1)")
    _check_rows(columns, where)
    bound, noise = _bound(table, where), noise_of(table, where, alpha)
    certified, wrong = _outcome(table, columns, where)
    _check_unique(table["image"], columns["idx"], where)

    n, count_top, count_label = columns["n"], columns["count_top"], columns["count_label"]
    count_second = _count_second(table, n, count_top, bound, where)
    if P_LOWER in table.column_names:
        p_lower = table[P_LOWER].to_numpy()
        check_bounds(p_lower, certified, count_top, n, noise.left, bound, where, count_second)
    if bound == TWO_CLASS and count_second is not None:
        p_lower = two_class_p_lower(count_top, count_second, n, noise.left)
        radii = np.where(certified, radius(p_lower, sigma), 0.0)
    elif bound == PLAIN:
        radii = np.where(certified, derived_radius(count_top, n, sigma, noise.left), 0.0)
    else:
        radii = radius(p_lower, sigma)
    contradiction = np.flatnonzero(certified & (radii <= 0))
    if contradiction.size:
        row = int(contradiction[0])
        raise UserError(f"{where} row {row}: outcome is certified, but {count_top[row]} of {n[row]} certify no radius")
    p_a = count_label / n
    facts = {**(run_summary or {}), **(summary or {})}
    summary = summary if summary is not None else run_summary or {}
    planned = int(summary["planned_images"]) if summary.get("planned_images") else None
    rows = Rows(
        idx=columns["idx"],
        label=columns["label"],
        predicted=np.where(certified, columns["predicted"], ABSTAINED),
        radius=radii,
        p_a=p_a,
        count=count_label,
        draws=n,
        image=table["image"].combine_chunks(),
        selected=columns["predicted"],
        count_top=count_top,
        count_second=count_second,
        stopped=wrong if wrong.any() else None,
    )
    return Source(
        name,
        "certificates",
        where,
        sigma,
        _planned_draws(facts, n),
        alpha,
        Distribution.of_images(p_a),
        rows,
        planned,
        partial=bool(summary.get("incomplete")),
        notes=notes(bound, n, wrong, _grid(facts)),
        bound=bound,
        grid=_reached(_grid(facts), radii) if bound in GRIDS else (),
        model=_model(table),
        precision=_precision(facts),
        class_names=tuple(facts.get("class_names") or ()),
        band=float(facts.get("band") or DEFAULT_BAND),
        noise=noise,
    )


def has_second_counts(content: bytes) -> bool:
    """Return whether a file holds the runner-up's counts; of a broken one True: its reader will say what is wrong."""
    try:
        return SECOND in pq.read_schema(pa.BufferReader(content)).names
    except (pa.ArrowException, OSError, ValueError):
        return True


def derived_radius(count: np.ndarray, n: np.ndarray, sigma: float, alpha: float) -> np.ndarray:
    """``sigma * Phi^-1`` of the Clopper-Pearson lower bound, computed once for each distinct (count, n)."""
    count, n = np.broadcast_arrays(np.asarray(count, dtype=np.int64), np.asarray(n, dtype=np.int64))
    base = int(n.max(initial=0)) + 1
    key, back = np.unique(n * base + count, return_inverse=True)
    return radius(lower_bound(key % base, key // base, alpha), sigma)[back]


def _count_second(table: pa.Table, n: np.ndarray, count_top: np.ndarray, bound: str, where: str) -> np.ndarray | None:
    """Return the most draws of each image that another class than the selected got; None if the file lacks it."""
    if SECOND not in table.column_names:
        if bound == TWO_CLASS:
            raise UserError(f"{where}: bound is {bound}, but column {SECOND} is missing")
        return None
    second = table[SECOND].to_numpy()
    fits = (second >= 0) & (second <= n - count_top)
    if not fits.all():
        row = int(np.argmin(fits))
        raise UserError(f"{where} row {row}: {SECOND} is {second[row]}, must lie in [0, n - count_top]")
    return second


def _planned_draws(facts: dict, n: np.ndarray) -> int:
    """Return the run's N if it says so: with early stopping it may be that no image needed all of them."""
    given = facts.get("n")
    return max(int(n.max()), given if isinstance(given, int) else 0)


def _grid(facts: dict) -> list[float]:
    """Return the radii that the run asked for, if it says them as numbers."""
    given = facts.get("radii")
    return [float(r) for r in given if isinstance(r, int | float)] if isinstance(given, list) else []


def _reached(grid: list[float], radii: np.ndarray) -> tuple[float, ...]:
    """Return the grid that was asked for; if the file does not say it, the radii of it that some image reached."""
    return tuple(sorted({r for r in grid if r >= 0} or set(np.round(radii[radii > 0], 9).tolist())))


def _model(table: pa.Table) -> str:
    """Return the one model behind all rows; "" if that is not said."""
    models = pc.unique(table[MODEL]).to_pylist() if MODEL in table.column_names else []
    return str(models[0]) if len(models) == 1 and models[0] else ""


def _precision(facts: dict) -> str:
    """Return what the run says of its network's arithmetic: its first word, but of int8 all, with the hash."""
    said = str(facts.get("arithmetic") or "")
    return said if said.startswith("int8") else said.split(" ")[0]


def _table(content: bytes, where: str) -> tuple[pa.Table, dict | None]:
    optional = {P_LOWER: "number", MODEL: "text", SECOND: "whole", **NOISE_COLUMNS}
    repeated = (
        "outcome",
        "bound",
        MODEL,
        *(column for column, kind in NOISE_COLUMNS.items() if kind == "text"),
    )
    table = read_table(content, COLUMNS, where, optional=optional, what="certificates file", repeated=repeated)
    check_table_version(table, CERTIFICATES_VERSION, where)
    summary = table_metadata(table, SUMMARY, where)
    return table, None if summary is None else check_run_facts(summary, f"{where}: its {SUMMARY}")


def _single(values: np.ndarray, column: str, where: str) -> float:
    other = np.flatnonzero(values != values[0])
    if other.size:
        row = int(other[0])
        raise UserError(
            f"{where} row {row}: {column} is {values[row]:g} but {values[0]:g} in row 0; one source has one {column}"
        )
    return float(values[0])


def _check_rows(columns: dict[str, np.ndarray], where: str) -> None:
    n = columns["n"]
    checks = [
        ("n", (n >= 1) & (n <= MOST_DRAWS), f"must be at least 1 and at most {MOST_DRAWS:,}"),
        ("idx", columns["idx"] >= 0, "must not be negative"),
    ]
    for column in ("label", "predicted"):
        least = ABSTAINED if column == "predicted" else 0
        fine = (columns[column] >= least) & (columns[column] < MOST_CLASSES)
        checks.append((column, fine, f"must not be negative, and below {MOST_CLASSES:,}"))
    checks += [(c, (columns[c] >= 0) & (columns[c] <= n), "must lie in [0, n]") for c in ("count_top", "count_label")]
    for column, fine, rule in checks:
        if not fine.all():
            row = int(np.argmin(fine))
            raise UserError(f"{where} row {row}: {column} is {columns[column][row]}, {rule}")
    agree = (columns["predicted"] != columns["label"]) | (columns["count_top"] == columns["count_label"])
    if not agree.all():
        raise UserError(f"{where} row {int(np.argmin(agree))}: predicted is the label, but their counts differ")


def _bound(table: pa.Table, where: str) -> str:
    bounds = sorted(map(str, pc.unique(table["bound"]).to_pylist()))
    if len(bounds) > 1:
        raise UserError(f"{where}: bounds of {len(bounds)} kinds ({', '.join(bounds)}); one source has one bound")
    if bounds[0] not in BOUNDS:
        raise UserError(f"{where}: bound is {bounds[0]}; this release reads {', '.join(BOUNDS)}")
    if bounds[0] != PLAIN and P_LOWER not in table.column_names:
        raise UserError(f"{where}: bound is {bounds[0]}, but column {P_LOWER} is missing; counts alone don't give it")
    return bounds[0]


def _outcome(table: pa.Table, columns: dict[str, np.ndarray], where: str) -> tuple[np.ndarray, np.ndarray]:
    """Return which rows are certified, and which ended because their selected class is wrong."""
    outcome = table["outcome"].cast(pa.string())
    unknown = pc.index(pc.is_in(outcome, value_set=pa.array([str(one) for one in Outcome])), False).as_py()
    if unknown >= 0:
        raise UserError(f"{where} row {unknown}: outcome is {outcome[unknown]}, not one of {', '.join(Outcome)}")
    wrong = pc.equal(outcome, str(Outcome.STOPPED_WRONG)).to_numpy()
    right = np.flatnonzero(wrong & (columns["predicted"] == columns["label"]))
    if right.size:
        outcome_text = f"outcome is {Outcome.STOPPED_WRONG}"
        raise UserError(f"{where} row {right[0]}: {outcome_text}, but the selected class is the label")
    return pc.equal(outcome, str(Outcome.CERTIFIED)).to_numpy(), wrong


def _check_unique(image: pa.ChunkedArray, idx: np.ndarray, where: str) -> None:
    if pc.count_distinct(image).as_py() != len(image):
        twice = next(v for v in pc.value_counts(image).to_pylist() if v["counts"] > 1)["values"]
        raise UserError(f"{where}: image {twice} appears more than once")
    order = np.argsort(idx, kind="stable")
    repeat = np.flatnonzero(np.diff(idx[order]) == 0)
    if repeat.size:
        first, second = order[repeat[0]], order[repeat[0] + 1]
        raise UserError(f"{where} row {second}: idx {idx[second]} was already in row {first}")


def _check(fine: bool, text: str) -> None:
    if not fine:
        raise UserError(text)
