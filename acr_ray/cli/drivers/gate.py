"""The gate's work: a new model on the images of an old one's certification, as far as the answer needs it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from acr_ray.certification.audit import Audited, read_run
from acr_ray.certification.run_plan import holds_run
from acr_ray.cli.drivers.gate_sources import CertifiedModel, DrawnModel, GateQuestion, NewModel
from acr_ray.cli.drivers.samplers import Samplers
from acr_ray.cli.results import GateResult
from acr_ray.cli.session import RunOptions, open_tracked_run
from acr_ray.formats.files import INT8, LEDGER, PLAN, PLAN_IMAGES, SUMMARY
from acr_ray.serving.gate import Gate, gate_order
from acr_ray.serving.gate_texts import finding_json, lines, why
from acr_ray.serving.paired import HOLDS
from acr_ray.settings import UserError
from acr_ray.storage import Folder
from acr_ray.storage.summaries import read_summary
from acr_ray.tracking.promoting import check_alias, promote
from acr_ray.tracking.registry import find_version, is_registered
from acr_ray.tracking.runs import with_run

SCHEMA_VERSION = 1
OWNED = (INT8, LEDGER, PLAN, PLAN_IMAGES, SUMMARY)


def gate(question: GateQuestion, options: RunOptions, samplers: Samplers) -> GateResult:
    """Judge, and move the alias; see `acr_ray.cli.commands.gate.run`."""
    out = options.folder()
    uri, version = options.mlflow_uri(out), None
    if question.promote:
        check_alias(question.promote)
        if not is_registered(question.new):
            raise UserError("--promote: NEW is no version of MLflow's registry; name it as models:/NAME/VERSION")
        version = find_version(question.new, uri)
        # By its number: an alias may mean another version by the time that the answer is known.
        question = replace(question, new=f"models:/{version.name}/{version.version}")
    result = _judge(question, options, out, samplers)
    if result.opened and question.promote and version is not None:
        print(promote(version, question.promote, uri, result.summary.get("mlflow_run_id")))
    return result


def _judge(question: GateQuestion, options: RunOptions, out: Folder, samplers: Samplers) -> GateResult:
    old = _old(question)
    order = gate_order(old.plan.names, question.seed)
    labels = np.asarray(old.plan.labels)[order]
    judged = Gate(question.requirements, labels, question.alpha, question.population)
    new = _new(question, old, order, options, out, samplers)
    identity = {
        "requirements": [one.text for one in question.requirements],
        "alpha": question.alpha,
        "population": question.population,
        "seed": question.seed,
        "old": old.plan.identity(),
        "new": new.identity(),
    }
    name = f"gate {question.new.rstrip('/').rsplit('/', 1)[-1]}"
    opened = open_tracked_run(
        options, out, "gate", identity, OWNED, name, check_room=lambda: new.check_room(options.verbose)
    )
    if opened is None:
        print(f"done before: {out}/{SUMMARY}")
        return _result(out, read_summary(out, "gate"))
    tracker = opened.tracker
    tracker.params({**identity, "against": question.against, "new_model": question.new})

    def work() -> None:
        if opened.computed:
            return
        new.feed(judged, old, order)
        summary = _summary(judged, question, old, new)
        out.write_json(SUMMARY, {**summary, "mlflow_run_id": tracker.run_id})

    with_run(tracker, work)
    summary = read_summary(out, "gate")
    for line in summary["lines"]:
        print(line)
    differences = {f"difference/{i}": one["difference"] for i, one in enumerate(summary["findings"])}
    tracker.metrics({"open": float(summary["open"]), "images_seen": summary["images_seen"], **differences})
    tracker.files(out, [SUMMARY])
    opened.close()
    return _result(out, summary)


def _old(question: GateQuestion) -> Audited:
    old = read_run(Folder(question.against, option="--against"))
    if len(old.store.finished) < len(old.plan.names):
        raise UserError(
            f"--against {question.against}: {len(old.store.finished)} of {len(old.plan.names)} images are certified; "
            "finish it first: the same certify command again"
        )
    s = old.plan.settings
    if s.stopping == "distribution":
        raise UserError(f"--against {question.against}: drew for the distribution of p_A, not for certificates")
    if s.stopping == "radii":
        asked = [r.radius for r in question.requirements if r.radius is not None and r.radius not in s.radii]
        if asked:
            raise UserError(
                f"--against {question.against}: stopped once its radii ({', '.join(f'{r:g}' for r in s.radii)}) were "
                f"known, which does not tell radius {asked[0]:g}; certify with --radii that name it"
            )
    return old


def _new(
    question: GateQuestion, old: Audited, order: list[int], options: RunOptions, out: Folder, samplers: Samplers
) -> NewModel:
    if not question.new.startswith(("runs:/", "models:/", "hf://")) and holds_run(Folder(question.new, option="NEW")):
        return CertifiedModel(old, question)
    return DrawnModel(old, order, question, options, out, samplers)


def _summary(judged: Gate, question: GateQuestion, old: Audited, new: NewModel) -> dict[str, Any]:
    findings, names = judged.findings(), old.plan.class_names
    images, both = len(old.plan.names), 2 * old.store.noise_draws
    share = f", {100 * new.evaluations / both:.1f} % of two runs" if both else ""
    needed = f"{judged.seen} of {images} images were needed, {new.evaluations:,} noise draws{share}"
    return {
        "schema_version": SCHEMA_VERSION,
        "open": judged.answer == HOLDS,
        "why": why(judged.answer, judged.seen, findings, names),
        "alpha": question.alpha,
        "about": "population" if question.population else "images",
        "images": images,
        "images_seen": judged.seen,
        "evaluations": new.evaluations,
        "evaluations_of_two_runs": both,
        "new_model_sha256": new.model_sha256,
        "old_model_sha256": old.plan.model_sha256,
        "findings": [finding_json(one, names) for one in findings],
        "lines": [*lines(findings, names), needed],
    }


def _result(out: Folder, summary: dict[str, Any]) -> GateResult:
    return GateResult(out, summary, opened=bool(summary["open"]), why=str(summary["why"]))
