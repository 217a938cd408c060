"""Making a bundle of a certification, and checking one. Without torch unless lines are drawn again."""

from __future__ import annotations

import hashlib
import platform
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import acr_ray
from acr_ray.certification.audit import Audited, read_run
from acr_ray.certification.bundle import MOST_BYTES, Bundle, describe, packed, unpacked
from acr_ray.certification.signing import fingerprint, read_private_key, read_public_key, sign, signer
from acr_ray.cli.drivers.audit import Redrawing, audited_numbers, redraw_lines
from acr_ray.cli.drivers.drawn_by import drawn_by
from acr_ray.cli.exits import CommandFailed
from acr_ray.formats.states import Outcome
from acr_ray.settings import UserError
from acr_ray.smoothing.bounds import radius
from acr_ray.storage import Folder

PACKAGES = ("numpy", "scipy", "torch", "torchvision", "ray")
RHO = 0.001
#: Part of a claimed number by which another machine's arithmetic may differ.
_SAME = 1e-9


@dataclass(frozen=True)
class Verified:
    """What was checked of a bundle.

    Attributes:
        bundle: its content.
        run: its counts, judged anew.
        checked, unchecked: one sentence each.
    """

    bundle: Bundle
    run: Audited
    checked: tuple[str, ...]
    unchecked: tuple[str, ...]


def write_bundle(run_folder: str, file: str, key_file: str | None) -> None:
    """Write one file with everything that another needs to check a certification.

    Raises:
        UserError: the run is unfinished or damaged, the key is none, or the file cannot be written.
    """
    folder = Folder(run_folder, option="RUN")
    key = read_private_key(key_file) if key_file else None
    run = read_run(folder)
    if len(run.store.finished) < len(run.plan.names):
        raise UserError(
            f"RUN {folder}: {len(run.store.finished)} of {len(run.plan.names)} images are certified; finish it first"
        )
    files = describe(run, folder, claims(run), environment() | _drawn_by(folder), acr_ray.__version__, code_sha256())
    content = packed(files, None if key is None else sign(key, files["manifest.json"]))
    target, name = _target(file)
    target.write_bytes(name, content)
    signed = "not signed" if key is None else "signed"
    print(f"bundle: {file} ({len(content):,} bytes, {signed}, SHA-256 {hashlib.sha256(content).hexdigest()})")


def check_bundle(file: str, key_file: str | None, redrawing: Redrawing | None) -> None:
    """Check a bundle, and print what was checked and what was not.

    Raises:
        UserError: the file is not there, the key is none, or model and images to draw with are not the bundle's.
        CommandFailed: something does not hold; says what.
    """
    wanted = read_public_key(key_file) if key_file else None
    target, name = _target(file)
    if not target.is_file(name):
        raise UserError(f"--verify {file}: not there")
    with tempfile.TemporaryDirectory(prefix="acr-ray-bundle-") as place:
        folder = Folder(place)
        try:
            found = verify(target.read_bytes(name, MOST_BYTES), file, wanted, folder)
        except UserError as error:
            raise CommandFailed(f"not verified: {error}") from None
        checked, unchecked = list(found.checked), list(found.unchecked)
        if redrawing is None:
            unchecked.insert(0, "that this model draws these counts (give --redraw K --checkpoint CHECKPOINT)")
        else:
            compared = redraw_lines(found.run, folder, redrawing)
            if compared.wrong:
                raise CommandFailed(f"not verified: {file}: {compared.told}")
            checked.append(compared.told)
    for line in checked:
        print(f"checked: {line}")
    for line in unchecked:
        print(f"not checked: {line}")


def verify(content: bytes, where: str, wanted: bytes | None, folder: Folder) -> Verified:
    """Check the content of a bundle.

    Args:
        where: its file, for messages.
        wanted: public key that must have signed it; None: none is asked for.
        folder: an empty one, which gets the ledger, and the int8 network if there is one.

    Raises:
        UserError: something does not hold; says what.
    """
    bundle = unpacked(content, where)
    checked, unchecked = [f"the file is as it was written (SHA-256 {bundle.sha256})"], []
    if bundle.signature is not None:
        public = signer(bundle.signature, bundle.manifest, where)
        if wanted is not None and public != wanted:
            raise UserError(f"{where}: signed by {fingerprint(public)}, not by the --key given ({fingerprint(wanted)})")
        if wanted is not None:
            checked.append(f"it was signed with the key given ({fingerprint(public)})")
        else:
            unchecked.append(f"whose key {fingerprint(public)} is, which signed it (give --key PUBLIC)")
    elif wanted is not None:
        raise UserError(f"{where}: is not signed, but --key asks for a signature")
    else:
        unchecked.append("who made it: it is not signed")
    bundle.put_files(folder)
    _, store = bundle.plan.open(folder)
    run = Audited(where, bundle.plan, store)
    _check_whole(run)
    _compare(bundle.claims, claims(run), where)
    checked.append(
        f"its counts give what it claims, by the code here (acr-ray {acr_ray.__version__}): "
        + "; ".join(_told(bundle.claims))
    )
    if bundle.plan.settings.dtype == "int8":
        unchecked.append("that its int8 network was made of the model that it names (jobs.certify --dtype int8 does)")
    unchecked.append("that images and labels are what their names say, and how the model was trained")
    return Verified(bundle, run, tuple(checked), tuple(unchecked))


def claims(run: Audited) -> dict[str, Any]:
    """Return the numbers that a run's counts give."""
    numbers = audited_numbers(run, RHO)
    finished, labels = run.store.finished, run.plan.labels
    held = [
        float(radius(v.p_lower, run.plan.settings.sigma))
        if v.outcome == Outcome.CERTIFIED and v.predicted == int(labels[i])
        else 0.0
        for i, v in finished.items()
    ]
    hard = sum(2 * v.counts.get(int(labels[i]), 0) < v.n for i, v in finished.items())
    return {**numbers, "acr": sum(held) / len(held), "hard_share": hard / len(held)}


def environment() -> dict[str, str]:
    """Return what this process runs on: versions by name."""
    found = {"python": platform.python_version(), "system": f"{platform.system()} {platform.machine()}"}
    for package in PACKAGES:
        if package in sys.modules or metadata.packages_distributions().get(package):
            found[package] = metadata.version(package)
    return found


def _drawn_by(folder: Folder) -> dict[str, str]:
    """Return what drew, in words, as far as it fits; nothing if the run does not say it."""
    told = "; ".join(map(str, drawn_by(folder)))
    return {"drawn_by": told[:1000]} if told else {}


def code_sha256() -> str:
    """Return the SHA-256 of this package's sources, by name and content."""
    root = Path(acr_ray.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py"), key=lambda p: p.relative_to(root).as_posix()):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(root).as_posix()} {len(content)}\n".encode() + content)
    return digest.hexdigest()


def _target(file: str) -> tuple[Folder, str]:
    place, _, name = file.rstrip("/").rpartition("/")
    if not name:
        raise UserError(f"{file}: names no file")
    return Folder(place or ("/" if file.startswith("/") else "."), option="FILE"), name


def _check_whole(run: Audited) -> None:
    finished, images = len(run.store.finished), len(run.plan.names)
    if finished < images:
        raise UserError(f"{run.where}: its counts finish {finished} of {images} images only")


def _compare(claimed: Mapping[str, Any], found: Mapping[str, Any], where: str, path: str = "") -> None:
    for key in sorted({*claimed, *found}):
        if key not in claimed or key not in found:
            raise UserError(f"{where}: claims {path}{key}, or does not, where its counts do the other")
        a, b = claimed[key], found[key]
        if isinstance(a, dict) and isinstance(b, dict):
            _compare(a, b, where, f"{path}{key}.")
        elif isinstance(a, float) and isinstance(b, float) and abs(a - b) <= _SAME * max(abs(a), abs(b)):
            continue
        elif a != b:
            raise UserError(f"{where}: claims {path}{key} = {str(a)[:80]}, but its counts give {str(b)[:80]}")


def _told(numbers: Mapping[str, Any]) -> list[str]:
    shares = ", ".join(f"{100 * share:.1f} % at {r}" for r, share in numbers["certified_accuracy"].items())
    return [f"{numbers['images']} images", f"ACR {numbers['acr']:.4f}", f"certified accuracy {shares}"]
