"""What a search has found: a row a trial, the best, the Pareto front, what it cost. No Ray."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from acr_ray.formats.files import CHECKPOINT, TRIALS, TRIALS_TABLE
from acr_ray.formats.metrics import Metric, number_text
from acr_ray.formats.states import TrialStatus
from acr_ray.formats.tables import FIELDS, METRICS, TRIALS_VERSION, described, parquet_bytes
from acr_ray.settings import Recipe
from acr_ray.storage import Folder
from acr_ray.training.methods import Passes
from acr_ray.tuning.objectives import Objective, pareto_front
from acr_ray.tuning.space import Space
from acr_ray.tuning.trial_run import SearchContext
from acr_ray.tuning.trunks import TrunkFiles

SCHEMA_VERSION = 1
ACR, HARD = Objective(Metric.ACR), Objective(Metric.HARD_SHARE)

Report = dict[str, Any]


def measured(reports: list[Report], finished_only: bool = True) -> list[Report]:
    """Return the reports of trials that were measured; unless told otherwise only of those trained to their end."""
    wanted = {TrialStatus.FINISHED} if finished_only else {TrialStatus.FINISHED, TrialStatus.STOPPED}
    return [r for r in reports if r["status"] in wanted and not np.isnan(r[ACR.name])]


def best_of(reports: list[Report], objective: Objective) -> Report | None:
    """Return the finished trial with the best value, the earliest of equal ones."""
    return max(measured(reports), key=lambda r: objective.sign * r[objective.name], default=None)


def front_of(reports: list[Report], objectives: tuple[Objective, ...], finished_only: bool = True) -> list[Report]:
    """Return the trials that none of the others beats in all of these objectives, the best in the first one first."""
    rows = list({r["trial"]: r for r in measured(reports, finished_only)}.values())
    if not rows:
        return []
    values = np.array([[r[o.name] for o in objectives] for r in rows], dtype=np.float64)
    on_front = pareto_front(values, tuple(o.sign for o in objectives))
    chosen = [r for r, on in zip(rows, on_front, strict=True) if on]
    return sorted(chosen, key=lambda r: -objectives[0].sign * r[objectives[0].name])


def trunk_files(out: Folder, reports: list[Report]) -> list[TrunkFiles]:
    """Return the trunks that these trials fork from, each once."""
    return [TrunkFiles(out, sha) for sha in dict.fromkeys(r.get("trunk", "") for r in reports) if sha]


def costs(out: Folder, reports: list[Report], baseline: Report | None = None) -> dict[str, int]:
    """Rows through the network that the results took; what faults had repeated is not in them.

    ``trials`` (their own epochs), ``trunks`` (with the p_A estimates that trials share), both forward and backward,
    ``validation`` (forward), ``baseline`` (its own epochs and its validation), and their sum. Equal trials count once.
    """
    if baseline is not None and "forward_passes" in baseline:
        counted, both = costs(out, reports), costs(out, [*reports, baseline])
        return (
            both
            | {name: counted[name] for name in ("trials", "validation")}
            | {"baseline": both["trials"] + both["validation"] - counted["trials"] - counted["validation"]}
        )
    rows = {r["trial"]: r for r in reports if "forward_passes" in r}.values()
    trials = sum((Passes(r["forward_passes"], r["backward_passes"]) for r in rows), Passes())
    trunks = sum((files.passes() for files in trunk_files(out, reports)), Passes())
    validation = sum(r["validation_passes"] for r in rows)
    counted = {"trials": trials.total, "trunks": trunks.total, "validation": validation}
    counted |= {"forward": trials.forward + trunks.forward + validation, "backward": trials.backward + trunks.backward}
    return counted | {"baseline": 0, "total": trials.total + trunks.total + validation}


def best_recipe(context: SearchContext, report: Report) -> Recipe:
    """Return the recipe of a trial, under a name of its own, for `jobs.train`."""
    return context.recipe.change(
        {**report["point"], "name": f"{context.recipe.name}-{report['trial']}"}, context.recipe.name
    )


def best_file(objective: Objective) -> str:
    """Return the name of the recipe that is best at a radius: ``best@0.25.json``."""
    return f"best@{number_text(objective.at)}.json"


def write_best(
    out: Folder, context: SearchContext, objectives: tuple[Objective, ...], reports: list[Report]
) -> dict[str, Report]:
    """Leave the best trial's recipe for each of these certified accuracies.

    Returns:
        by radius the trial in a few numbers, and its recipe's file; empty if no trial was trained to its end.
    """
    found = {}
    for objective in objectives:
        best = best_of(reports, objective)
        if best is not None:
            name = best_file(objective)
            out.write_json(name, best_recipe(context, best).model_dump(mode="json"))
            found[number_text(objective.at)] = about(context, best) | {"recipe": name}
    return found


def write_table(out: Folder, context: SearchContext, space: Space, reports: list[Report]) -> None:
    """``trials.parquet``: one row a trial in the order of their creation; metrics of unmeasured trials are null."""
    columns: dict[str, list[Any]] = {
        "number": list(range(len(reports))),
        "trial": [r["trial"] for r in reports],
        "status": [str(r["status"]) for r in reports],
        "reason": [r.get("reason", "") for r in reports],
    }
    columns |= {field: [r["point"][field] for r in reports] for field in space.fields}
    columns |= {o.name: [_measurement(r, o) for r in reports] for o in context.objectives}
    for name in ("epoch", "forward_passes", "backward_passes", "validation_passes", "seconds"):
        columns["epochs" if name == "epoch" else name] = [r.get(name) for r in reports]
    columns["trunk"] = [r.get("trunk", "") for r in reports]
    table = pa.table({name: _column(values) for name, values in columns.items()})
    about = {FIELDS: list(space.fields), METRICS: [o.name for o in context.objectives]}
    out.write_bytes(TRIALS_TABLE, parquet_bytes(described(table, TRIALS_VERSION, about)))


def summary_of(
    out: Folder,
    context: SearchContext,
    space: Space,
    reports: list[Report],
    settings: dict[str, Any],
    baseline: Report | None = None,
) -> Report:
    """``summary.json``: what was asked, the best, the Gaussian baseline, the fronts, the costs."""
    best = best_of(reports, context.asked[0])
    counts = {status: sum(r["status"] == status for r in reports) for status in dict.fromkeys(_statuses(reports))}
    summary: Report = {"schema_version": SCHEMA_VERSION, "recipe": context.recipe.name, "space": space.text()}
    summary |= settings
    summary |= {"metric": [o.name for o in context.asked], "trials": len(reports), "statuses": counts}
    summary["best"] = None if best is None else about(context, best)
    summary["baseline"] = None if baseline is None else about(context, baseline)
    if len(context.asked) > 1:
        summary["pareto"] = [about(context, r) for r in front_of(reports, context.asked)]
    summary["acr_against_hard_share"] = [about(context, r) for r in acr_front(reports)]
    every = reports if baseline is None else [*reports, baseline]
    summary["passes"] = costs(out, reports, baseline)
    summary["trunks"] = [files.sha for files in trunk_files(out, every)]
    return summary


def about(context: SearchContext, report: Report) -> Report:
    """Return a trial in a few numbers."""
    metrics = {o.name: _measurement(report, o) for o in context.objectives}
    numbers = {"trial": report["trial"], "point": report["point"], "metrics": metrics, "epochs": report["epoch"]}
    numbers |= {"status": str(report["status"]), "trunk": report.get("trunk", "")}
    if report["status"] == TrialStatus.FINISHED:
        numbers["model"] = f"{TRIALS}/{report['trial']}/{CHECKPOINT}"
    return numbers


def acr_front(reports: list[Report]) -> list[Report]:
    """Return the front of ACR against hard images, the highest ACR first.

    Trials that were stopped early are in it as last measured: a scheduler that goes by ACR stops those that give up
    fewer images, and what it hides so is what this front is for.
    """
    return front_of(reports, (ACR, HARD), finished_only=False)


def _statuses(reports: list[Report]) -> list[str]:
    return [str(r["status"]) for r in reports]


def _measurement(report: Report, objective: Objective) -> float | None:
    value = report.get(objective.name)
    if value is None or np.isnan(value) or report["status"] == TrialStatus.FAILED:
        return None
    return float(value)


def _column(values: list[Any]) -> pa.Array:
    """As it is if all values are of one kind; as text if they are not (a field that may be none, say)."""
    kinds = {type(v) for v in values if v is not None}
    if kinds <= {int, float} and len(kinds) == 2:
        values = [None if v is None else float(v) for v in values]
    elif len(kinds) > 1 or kinds & {tuple, list, dict}:
        values = [str(v) for v in values]
    return pa.array(values)
