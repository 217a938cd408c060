"""Trunks: the training that trials have in common before epoch E_t, done once and kept.

Until E_t nothing of discarding, reweighing and the attack acts: trials that differ in p_t, T, ε or E_t alone are one
and the same Gaussian training. A trunk is that training, with checkpoints at the epochs where trials fork off. What
it is decides its folder's name, so searches that come later find it.
"""

from __future__ import annotations

import tempfile
import time
import uuid
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import numpy as safe_numpy

from acr_ray.formats.files import TRUNK, TRUNKS
from acr_ray.settings import Recipe, digest
from acr_ray.storage import Folder
from acr_ray.training.checkpoint import MODEL, OPTIMIZER, SAMPLES, STATE
from acr_ray.training.group import Group
from acr_ray.training.loop import Hooks, Trainer
from acr_ray.training.methods import Passes
from acr_ray.training.named_files import Contents
from acr_ray.tuning.kept_files import read_entry
from acr_ray.tuning.leases import Claims, heartbeat, new_owner

FILES = (MODEL, OPTIMIZER, SAMPLES, STATE)
# Without effect before E_t.
ACT_FROM_E_T = ("training.e_t", "training.epochs", "training.replacement", "discard.", "reweigh.", "attack.")
WAIT = 0.3  # seconds between checks for what another trial is making


def trunk_identity(recipe: Recipe, run_context: dict[str, Any], contents: Contents | None = None) -> dict[str, Any]:
    """Return what decides a trunk: the recipe without what acts from E_t on, the seed, the images and the hardware."""
    early = {name: value for name, value in recipe.identity(contents).items() if not name.startswith(ACT_FROM_E_T)}
    return early | run_context


def trunk_recipe(recipe: Recipe) -> Recipe:
    """Return the recipe of a trunk: the trial's without its three parts."""
    off = {f"{part}.enabled": False for part in ("discard", "reweigh", "attack")}
    return recipe.change({**off, "training.e_t": 0}, recipe.name)


def passes_of(records: list[dict[str, Any]]) -> Passes:
    """Return what these epochs cost, p_A estimates included."""
    return Passes(sum(r["forward_passes"] for r in records), sum(r["backward_passes"] for r in records))


class TrunkFiles:
    """A trunk's folder: ``epoch_00020.json`` for each checkpoint, ``p_a_….json`` for each estimate.

    These small files are written last: what they point to is complete. Checkpoints lie in folders with names of
    their own, so two writers never mix theirs.
    """

    def __init__(self, out: Folder, sha: str) -> None:
        self.sha, self.folder = sha, out / TRUNKS / sha

    def checkpoints(self) -> dict[int, dict[str, Any]]:
        """Return the checkpoints by epoch, ascending."""
        names = [name for name in self.folder.names(".json") if name.startswith("epoch_")]
        entries = [read_entry(self.folder, name) for name in names]
        return {entry["epoch"]: entry for entry in sorted(entries, key=lambda entry: entry["epoch"])}

    def at(self, epoch: int) -> dict[str, Any] | None:
        """Return the checkpoint that trials fork from at this epoch, if there is one."""
        name = _pointer(epoch)
        entry = read_entry(self.folder, name) if self.folder.is_file(name) else None
        return entry if entry and entry["kept"] else None

    def add(self, trainer: Trainer, kept: bool, seconds: float) -> None:
        """Keep a checkpoint of the epochs done. One that is not ``kept`` for forks gives way to the next."""
        epoch, before = trainer.progress.epoch, self.checkpoints()
        # What an interrupted run repeated is not counted: the same trunk has the same passes however it came about.
        base = max((e for e, entry in before.items() if entry["kept"] and e < epoch), default=0)
        passes = passes_of(trainer.progress.history[base:epoch])
        name = f"epoch_{epoch:05d}_{uuid.uuid4().hex[:8]}"
        with tempfile.TemporaryDirectory() as temporary:
            trainer.save(Path(temporary))
            for file in FILES:
                (self.folder / name).write_bytes(file, (Path(temporary) / file).read_bytes())
        entry = {"epoch": epoch, "folder": name, "kept": kept, "from_epoch": base, "seconds": round(seconds, 3)}
        entry |= {"forward_passes": passes.forward, "backward_passes": passes.backward}
        self.folder.write_json(_pointer(epoch), entry)
        for passed, old in before.items():
            if passed < epoch and not old["kept"]:
                self.folder.delete(_pointer(passed))
                self.folder.delete(old["folder"])

    def load(self, epoch: int, trainer: Trainer) -> None:
        """Put a trainer at this checkpoint."""
        place = self.folder / self.checkpoints()[epoch]["folder"]
        with tempfile.TemporaryDirectory() as temporary:
            for file in FILES:
                (Path(temporary) / file).write_bytes(place.read_bytes(file))
            trainer.load(Path(temporary), self.sha)

    def estimate(self, key: str) -> NDArray[np.int64] | None:
        """Return a shared p_A estimate as label counts of every training sample."""
        if not self.folder.is_file(f"p_a_{key}.json"):
            return None
        return safe_numpy.load(self.folder.read_bytes(f"p_a_{key}.safetensors"))["counts"]

    def add_estimate(self, key: str, counts: NDArray[np.int64], about: dict[str, Any]) -> None:
        self.folder.write_bytes(f"p_a_{key}.safetensors", safe_numpy.save({"counts": np.ascontiguousarray(counts)}))
        self.folder.write_json(f"p_a_{key}.json", about)

    def passes(self) -> Passes:
        """Return what the trunk cost: its epochs up to the last fork, and its p_A estimates."""
        names = [n for n in self.folder.names(".json") if n.startswith(("epoch_", "p_a_"))]
        entries = [read_entry(self.folder, name) for name in names]
        return passes_of([entry for entry in entries if entry.get("kept", True)])


class _Next(IntEnum):
    """What a trial does about something that several need."""

    WAIT = 0  # another trial makes it
    MAKE = 1
    USE = 2  # it is there


@dataclass(frozen=True)
class Trunks:
    """How trials come to their fork.

    Attributes:
        out: the search's folder; all workers must see it.
        forks: the E_t values that are known to be wanted; a trunk that passes one keeps a checkpoint of it.
        claims: sees to it that of several trials that need the same thing one makes it.
        run_context: seed, images and hardware; part of every trunk's identity.
        contents: of what recipes name by path or module, see `check_named`.
        checkpoint_every: epochs after which a trunk that is killed need not be repeated.
    """

    out: Folder
    forks: tuple[int, ...]
    claims: Claims
    run_context: dict[str, Any]
    checkpoint_every: int = 10
    contents: Contents = field(default_factory=dict)

    def files(self, recipe: Recipe) -> TrunkFiles:
        return TrunkFiles(self.out, digest(trunk_identity(recipe, self.run_context, self.contents)))

    def fork(self, trainer: Trainer) -> str:
        """Bring a new trial's trainer to its epoch E_t, with the p_A estimate it discards by. All workers call it.

        Trains what the trunk lacks, or waits for the trial that does; either way it is trained once.

        Returns:
            The trunk's name.
        """
        recipe, files = trainer.recipe, self.files(trainer.recipe)
        e_t = recipe.training.e_t
        self._once(trainer.group, files.sha, lambda: files.at(e_t) is not None, lambda: self._grow(files, trainer))
        files.load(e_t, trainer)
        if recipe.discard.enabled:
            key = estimate_key(recipe, self.contents)
            self._once(
                trainer.group,
                f"{files.sha}/{key}",
                lambda: files.estimate(key) is not None,
                lambda: _estimate(files, key, trainer),
            )
            trainer.selection.preset(files.estimate(key))
        return files.sha

    def _once(self, group: Group, name: str, there: Callable[[], bool], make: Callable[[], None]) -> None:
        """Have ``make`` done by one trial; returns where it is done, whoever did it."""
        owner = new_owner()

        def next_step() -> _Next:
            if there():
                return _Next.USE
            # Asked again once the claim is granted: whoever had it before may just have finished.
            return _Next.WAIT if not self.claims.ask(name, owner) else _Next.USE if there() else _Next.MAKE

        while True:
            # Rank 0 asks for all; the others learn its answer.
            step = _Next(int(group.sum(np.array([next_step() if group.rank == 0 else 0]))[0]))
            if step == _Next.MAKE:
                with heartbeat(self.claims, name, owner) if group.rank == 0 else nullcontext():
                    make()
            elif step == _Next.WAIT:
                time.sleep(WAIT)
            else:
                if group.rank == 0:
                    self.claims.release(name, owner)
                return

    def _grow(self, files: TrunkFiles, trial: Trainer) -> None:
        """Train the trunk from its last checkpoint before the trial's E_t to E_t."""
        e_t, group, started = trial.recipe.training.e_t, trial.group, time.monotonic()
        trunk = Trainer(
            trunk_recipe(trial.recipe), trial.images, trial.seed, group, trial.device, self.contents, files.sha
        )
        begin = max((epoch for epoch in files.checkpoints() if epoch <= e_t), default=None)
        begin = int(group.sum(np.array([-1 if begin is None else begin]))[0]) // group.world
        if begin >= 0:
            files.load(begin, trunk)
        if group.rank == 0:
            files.folder.write_json(TRUNK, trunk_identity(trial.recipe, self.run_context, self.contents))

        def after_epoch() -> None:
            epoch = trunk.progress.epoch
            if group.rank == 0 and epoch != e_t:
                if epoch in self.forks:
                    files.add(trunk, True, time.monotonic() - started)
                elif epoch % self.checkpoint_every == 0:
                    files.add(trunk, False, time.monotonic() - started)

        trunk.run(Hooks(after_epoch=after_epoch), until=e_t)
        if group.rank == 0:
            files.add(trunk, True, time.monotonic() - started)


def estimate_key(recipe: Recipe, contents: Contents | None = None) -> str:
    """Name of the p_A estimate that a trial discards by: the same for every p_t."""
    d, known = recipe.discard, contents or {}
    checkpoint = None if d.checkpoint is None else known.get(d.checkpoint, d.checkpoint)
    what = {"e_t": recipe.training.e_t, "draws": d.draws, "view": d.view, "checkpoint": checkpoint}
    what |= {} if d.p_a_file is None else {"p_a_file": known.get(d.p_a_file, d.p_a_file)}
    return f"{recipe.training.e_t:05d}_{digest(what)[:12]}"


def _estimate(files: TrunkFiles, key: str, trainer: Trainer) -> None:
    trainer.passes.take()
    counts = trainer.discard_counts()
    forward, backward = (int(n) for n in trainer.group.sum(np.array(trainer.passes.take())))
    d, e_t = trainer.recipe.discard, trainer.recipe.training.e_t
    about = {"epoch": e_t, "draws": d.draws, "view": d.view, "checkpoint": d.checkpoint}
    if trainer.group.rank == 0:
        files.add_estimate(key, counts, about | {"forward_passes": forward, "backward_passes": backward})


def _pointer(epoch: int) -> str:
    return f"epoch_{epoch:05d}.json"
