"""What can be said again from ledgers alone: other error probabilities, and several runs together. No torch, no Ray."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

from acr_ray.certification.count_store import CountStore
from acr_ray.certification.procedure import CertificationProcedure, Counts, Verdict, added
from acr_ray.certification.run_plan import MOST_BYTES, RunPlan
from acr_ray.formats.files import INT8
from acr_ray.formats.states import Outcome
from acr_ray.settings import UserError
from acr_ray.smoothing.rules import PLAIN, TWO_CLASS, Draws
from acr_ray.smoothing.run_noise import SOUND, judged_by
from acr_ray.smoothing.stopping import rule_for
from acr_ray.storage import Folder


@dataclass(frozen=True)
class Audited:
    """A run read from its ledger.

    Attributes:
        where: its folder.
        plan: what it set out to do; with another alpha or bound if that was asked for.
        store: its counts, judged by that plan.
    """

    where: str
    plan: RunPlan
    store: CountStore


def read_run(
    folder: Folder, alpha: float | None = None, bound: str | None = None, certificate: str | None = None
) -> Audited:
    """Return a run from its ledger, judged anew with another alpha, bound or kind of certificate if one is given.

    The draws of a fixed run do not depend on them, so any alpha chosen *before looking* is as good as one chosen
    before drawing. A sequential rule stops by its alpha; its runs can only be read with their own.

    Raises:
        UserError: no run is there, it is damaged, or it stopped by another alpha.
    """
    plan = RunPlan.load(folder)
    wanted = {"alpha": alpha, "bound": bound, "certificate": certificate}
    changes = {k: v for k, v in wanted.items() if v is not None and v != getattr(plan.settings, k)}
    if changes and plan.settings.stopping != "fixed":
        raise UserError(
            f"{folder}: its images stopped by {plan.settings.stopping} at alpha {plan.settings.alpha:g}; "
            f"{' and '.join(f'--{name}' for name in changes)} can be changed for runs with --stopping fixed only"
        )
    plan = replace(plan, settings=plan.settings.change(changes, str(folder))) if changes else plan
    _, store = plan.open(folder)
    return Audited(str(folder), plan, store)


def int8_network(run: Audited, folder: Folder | None, option: str) -> bytes | None:
    """Return the int8 network that drew a run's counts, as a file; None if the run is not of one.

    Args:
        folder: where it would lie: the run's, or one with the content of a bundle; None: nowhere.
        option: that asks for it, for messages.

    Raises:
        UserError: it is not there, or another lies there.
    """
    if run.plan.settings.dtype != "int8":
        return None
    if folder is None or not folder.is_file(INT8):
        raise UserError(f"{option}: {run.where}: its {INT8} is not here, and nothing else draws its counts")
    content = folder.read_bytes(INT8, MOST_BYTES)
    if not drew_with(run.plan, content):
        raise UserError(f"{option}: {folder}/{INT8}: not the int8 network of {run.where} (its SHA-256 is another)")
    return content


def drew_with(plan: RunPlan, int8: bytes) -> bool:
    """Return whether a run's certificates name this int8 network."""
    return plan.settings.dtype == "int8" and hashlib.sha256(int8).hexdigest() in plan.arithmetic


def merge(runs: Sequence[Audited]) -> Audited:
    """Several runs of one classifier as one: other images, or more draws of the same.

    An image that is in several runs gets the sum of their estimation draws. Its class is the one that the first of
    them selected: those selection draws are independent of all estimation draws, so the sum is a binomial count of
    fresh draws. Of draws that two runs share (the same seed: the smaller n is the beginning of the larger) only
    one copy is counted.

    Raises:
        UserError: the runs differ in what is certified (sigma, model, arithmetic), in alpha or bound, disagree on a
            label, don't stop at a fixed n, or share noise in part (the same seed with other blocks).
    """
    first = runs[0]
    for other in runs[1:]:
        _check_alike(first, other)
    images: dict[str, list[tuple[Audited, int]]] = {}
    for run in runs:
        for position in run.store.finished:
            images.setdefault(run.plan.names[position], []).append((run, position))
    names = sorted(images, key=lambda name: images[name][0][0].plan.idx[images[name][0][1]])
    planned = {name for run in runs for name in run.plan.names}
    missing = planned - set(names)
    labels, idx, verdicts, seconds = [], [], {}, {}
    for at, name in enumerate(names):
        sources = images[name]
        run, position = sources[0]
        labels.append(int(run.plan.labels[position]))
        idx.append(int(run.plan.idx[position]))
        for other, place in sources[1:]:
            if (int(other.plan.labels[place]), int(other.plan.idx[place])) != (labels[-1], idx[-1]):
                raise UserError(f"{name}: {run.where} and {other.where} disagree on its label or its place in the data")
        verdicts[at] = _together(name, sources)
        seconds[at] = sum(r.store.seconds(p) for r, p in sources)
    # Images that no run has finished come last: the plan counts them, the store does not have them.
    for run in runs:
        for name, label, place in zip(run.plan.names, run.plan.labels, run.plan.idx, strict=True):
            if name in missing:
                missing.discard(name)
                names.append(name)
                labels.append(int(label))
                idx.append(int(place))
    plan = replace(first.plan, names=names, idx=idx, labels=labels)
    store = CountStore(CertificationProcedure(plan.judged()), names, labels)
    store.restore(verdicts, seconds, sum(run.store.noise_draws for run in runs))
    return Audited(" + ".join(run.where for run in runs), plan, store)


def _together(name: str, sources: Sequence[tuple[Audited, int]]) -> Verdict:
    distinct: dict[int, tuple[Audited, Verdict]] = {}
    for run, position in sources:
        verdict, seed = run.store.finished[position], run.plan.settings.seed
        if seed in distinct:
            known, before = distinct[seed]
            if known.plan.settings.block != run.plan.settings.block:
                raise UserError(
                    f"{name}: {known.where} and {run.where} drew it with the same seed {seed} in other blocks, so they "
                    "share a part of their noise; merge runs with different seeds"
                )
            if before.n >= verdict.n:
                continue
        distinct[seed] = (run, verdict)
    verdicts = [verdict for _, verdict in distinct.values()]
    if len(verdicts) == 1:
        return verdicts[0]
    predicted = sources[0][0].store.finished[sources[0][1]].predicted
    counts: Counts = added([verdict.counts for verdict in verdicts])
    n = sum(verdict.n for verdict in verdicts)
    plan = sources[0][0].plan
    rule = rule_for(judged_by(plan.settings.change({"n": n}), plan.noise(n)))
    p_lower = rule.judge_draws(Draws(predicted, {}, [counts])).p_lower
    outcome = Outcome.CERTIFIED if p_lower > 0.5 else Outcome.ABSTAINED
    return Verdict(outcome, predicted, p_lower, counts, n, "merged")


def _check_alike(first: Audited, other: Audited) -> None:
    classes = first.plan.class_names, other.plan.class_names
    if list(classes[0]) != list(classes[1]):
        shown = [", ".join(names[:12]) for names in classes]
        raise UserError(f"{other.where}: its classes are {shown[1]}, but {shown[0]} in {first.where}; not merged")
    for run in (first, other):
        s = run.plan.settings
        if s.stopping != "fixed" or s.stop_when_wrong or run.store.procedure.rule.name not in (PLAIN, TWO_CLASS):
            raise UserError(f"{run.where}: only runs with a fixed n and the Clopper-Pearson bound can be merged")
    for what, a, b in [
        ("sigma", first.plan.settings.sigma, other.plan.settings.sigma),
        ("alpha", first.plan.settings.alpha, other.plan.settings.alpha),
        ("certificate", first.plan.settings.certificate, other.plan.settings.certificate),
        ("model_sha256", first.plan.model_sha256, other.plan.model_sha256),
        ("arithmetic", first.plan.arithmetic, other.plan.arithmetic),
        ("noise", first.plan.settings.noise, other.plan.settings.noise),
        ("grid", first.plan.settings.grid, other.plan.settings.grid),
        ("dataset", first.plan.settings.dataset, other.plan.settings.dataset),
        ("split", first.plan.settings.split, other.plan.settings.split),
    ]:
        if a != b:
            raise UserError(f"{other.where}: {what} is {b}, but {a} in {first.where}; such runs cannot be merged")
    ours, theirs = first.plan.settings, other.plan.settings
    grade = first.plan.noise().grade
    if grade == SOUND and ours.block != theirs.block and ours.seed != theirs.seed:
        raise UserError(
            f"{other.where}: block is {theirs.block}, but {ours.block} in {first.where}; sound certificates speak of "
            "the network in forward passes of one shape, so such runs cannot be merged"
        )
