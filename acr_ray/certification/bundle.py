"""A certification as one file that others can check: counts, settings, hashes, claims. No torch, no Ray.

A tar archive of few files with canonical bytes: fixed order, no times, no owners. Whatever is changed in it is noticed:
``digest`` is the SHA-256 of all before it, and the archive is built anew from its files and compared byte by byte.
Nothing of it is ever unpacked to the place that it names.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from acr_ray.certification.audit import Audited, drew_with, int8_network
from acr_ray.certification.ledger import Ledger
from acr_ray.certification.run_plan import RunPlan
from acr_ray.formats.files import INT8, LEDGER
from acr_ray.settings import CertifySettings, UserError
from acr_ray.settings.documents import check, check_version, parse_json
from acr_ray.storage import Folder

VERSION = 1
MOST_BYTES = 2**30
MANIFEST, CLAIMS, IMAGES, COUNTS, SIGNATURE, DIGEST = (
    "manifest.json",
    "claims.json",
    "images.jsonl",
    "counts.jsonl",
    "signature.json",
    "digest",
)
CONTENT = (CLAIMS, IMAGES, COUNTS)  # what the manifest has the hashes of; also of INT8, in bundles of int8 networks
_BLOCK = 512  # of a tar archive


class _FileEntry(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")

    bytes: Annotated[int, Field(ge=0, le=MOST_BYTES)]
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class _Manifest(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")

    schema_version: int
    acr_ray: Annotated[str, Field(max_length=100)]
    code_sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    settings: dict[str, Any]
    model_sha256: Annotated[str, Field(max_length=200)]
    data: Annotated[str, Field(max_length=200)]
    arithmetic: Annotated[str, Field(max_length=1000)]
    coordinates: Annotated[int, Field(ge=0)]
    num_classes: Annotated[int, Field(ge=2, le=100_000)]
    class_names: list[Annotated[str, Field(max_length=1000)]]
    noise: dict[str, Any]
    environment: dict[str, Annotated[str, Field(max_length=1000)]]
    files: dict[str, _FileEntry]


class _Image(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")

    image: str
    idx: Annotated[int, Field(ge=0)]
    label: Annotated[int, Field(ge=0)]


class _Signature(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")

    algorithm: Annotated[str, Field(pattern="^ed25519$")]
    public_key: Annotated[str, Field(max_length=100)]
    signature: Annotated[str, Field(max_length=200)]


@dataclass(frozen=True)
class Bundle:
    """A bundle whose bytes are whole.

    Attributes:
        where: its file, for messages.
        plan: of the run.
        claims: numbers that it says the counts give.
        counts: its ledger's lines.
        int8: the int8 network that drew them; None: none did, or the bundle is of a time when it was left out.
        manifest: what is signed.
        described: the manifest's values.
        signature: None if it is not signed.
        sha256: of the whole file.
    """

    where: str
    plan: RunPlan
    claims: dict[str, Any]
    counts: bytes
    int8: bytes | None
    manifest: bytes
    described: dict[str, Any]
    signature: dict[str, str] | None
    sha256: str

    def put_files(self, folder: Folder) -> None:
        """Write the counts as a run's ledger, for `RunPlan.open` to read, and the int8 network for a redraw."""
        (folder / LEDGER).write_bytes("00000000.jsonl", self.counts)
        if self.int8 is not None:
            folder.write_bytes(INT8, self.int8)


def describe(
    run: Audited, folder: Folder, claims: Mapping[str, Any], environment: Mapping[str, str], version: str, code: str
) -> dict[str, bytes]:
    """Return the content of a bundle by file name: all but signature and digest.

    Args:
        run, folder: a run and where its ledger lies.
        claims: numbers that the counts give.
        environment: versions of what made this, by name.
        version, code: of this package, and the SHA-256 of its sources.

    Raises:
        UserError: the run is of an int8 network, which is not there, or another lies there.
    """
    plan = run.plan
    lines = sorted(
        (b.image, [p for p in run.store.phases].index(b.phase), b.first, b.stop, b.phase, sorted(counts.items()))
        for _, (b, counts, _) in Ledger(folder, plan.names, plan.num_classes).lines(run.store.phases)
    )
    files = {
        CLAIMS: _json(claims),
        IMAGES: b"".join(
            _json({"image": name, "idx": int(idx), "label": int(label)})
            for name, idx, label in zip(plan.names, plan.idx, plan.labels, strict=True)
        ),
        COUNTS: b"".join(
            _json(
                {
                    "image": plan.names[image],
                    "phase": phase,
                    "first": first,
                    "stop": stop,
                    "counts": {str(c): k for c, k in counts},
                    "seconds": 0.0,  # of no meaning to others
                }
            )
            for image, _, first, stop, phase, counts in lines
        ),
    }
    if (int8 := int8_network(run, folder, "--bundle")) is not None:
        files[INT8] = int8
    facts = plan.noise()
    manifest = {
        "schema_version": VERSION,
        "acr_ray": version,
        "code_sha256": code,
        # Where the images lay is nobody else's business.
        "settings": plan.settings.model_dump(mode="json", exclude={"root", "class_map", "image_list"}),
        "model_sha256": plan.model_sha256,
        "data": plan.data,
        "arithmetic": plan.arithmetic,
        "coordinates": plan.coordinates,
        "num_classes": plan.num_classes,
        "class_names": list(plan.class_names),
        "noise": {"name": facts.name, "step": facts.step, "grade": facts.grade, "alpha": facts.share},
        "environment": dict(environment),
        "files": {name: {"bytes": len(c), "sha256": hashlib.sha256(c).hexdigest()} for name, c in files.items()},
    }
    return {MANIFEST: _json(manifest), **files}


def packed(files: Mapping[str, bytes], signature: Mapping[str, str] | None = None) -> bytes:
    """Return the archive: canonical bytes, the same for the same content."""
    parts = [_member(name, files[name]) for name in (MANIFEST, *CONTENT, INT8) if name != INT8 or name in files]
    if signature is not None:
        parts.append(_member(SIGNATURE, _json(signature)))
    before = b"".join(parts)
    digest = hashlib.sha256(before).hexdigest().encode() + b"\n"
    return before + _member(DIGEST, digest) + bytes(2 * _BLOCK)


def unpacked(content: bytes, where: str) -> Bundle:
    """Read a bundle.

    Raises:
        UserError: it is none, a byte of it was changed, or it does not fit together; says what.
    """
    files = _members(content, where)
    signature = None
    if SIGNATURE in files:
        signature = check(_Signature, _parsed(files[SIGNATURE], f"{where}: {SIGNATURE}"), f"{where}: {SIGNATURE}")
        signature = signature.model_dump()
    again = packed(files, signature)
    if again != content:
        at = next(
            (i for i, (a, b) in enumerate(zip(again, content, strict=False)) if a != b), min(len(again), len(content))
        )
        raise UserError(f"{where}: was changed after it was made (byte {at})")
    inner = f"{where}: {MANIFEST}"
    described = check(_Manifest, check_version(_parsed(files[MANIFEST], inner), inner, VERSION), inner)
    for name in [*CONTENT, *({INT8} & {*files, *described.files})]:
        entry = described.files.get(name)
        if entry is None or entry.sha256 != hashlib.sha256(files.get(name, b"")).hexdigest():
            raise UserError(f"{where}: {name} is not what its {MANIFEST} says")
    claims = _parsed(files[CLAIMS], f"{where}: {CLAIMS}")
    if not isinstance(claims, dict):
        raise UserError(f"{where}: {CLAIMS} holds no object")
    plan = _plan(described, files[IMAGES], where)
    sha256 = hashlib.sha256(content).hexdigest()
    int8 = files.get(INT8)
    if int8 is not None and not drew_with(plan, int8):
        raise UserError(f"{where}: {INT8} is not the network that its counts are of (its SHA-256 is another)")
    values = described.model_dump()
    return Bundle(where, plan, claims, files[COUNTS], int8, files[MANIFEST], values, signature, sha256)


def _plan(described: _Manifest, images: bytes, where: str) -> RunPlan:
    rows = []
    for number, line in enumerate(images.decode("utf-8", "replace").splitlines(), 1):
        rows.append(
            check(_Image, parse_json(line, f"{where}: {IMAGES} line {number}"), f"{where}: {IMAGES} line {number}")
        )
    if not rows or len({row.image for row in rows}) != len(rows) or any(r.label >= described.num_classes for r in rows):
        raise UserError(f"{where}: {IMAGES} lists no images, one twice, or a label that is no class")
    if len(described.class_names) != described.num_classes:
        raise UserError(f"{where}: has {len(described.class_names)} class names for {described.num_classes} classes")
    return RunPlan(
        settings=CertifySettings.build(described.settings, f"{where}: {MANIFEST}"),
        names=[row.image for row in rows],
        idx=[row.idx for row in rows],
        labels=[row.label for row in rows],
        num_classes=described.num_classes,
        model_sha256=described.model_sha256,
        arithmetic=described.arithmetic,
        data=described.data,
        class_names=tuple(described.class_names),
        coordinates=described.coordinates,
    )


def _members(content: bytes, where: str) -> dict[str, bytes]:
    allowed: Sequence[str] = (MANIFEST, *CONTENT, INT8, SIGNATURE, DIGEST)
    found: dict[str, bytes] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as archive:
            for member in archive:
                if not member.isreg() or member.name not in allowed or member.name in found:
                    raise UserError(f"{where}: no bundle of acr-ray: it holds {member.name[:80]!r}")
                stream = archive.extractfile(member)
                assert stream is not None  # a regular file has one
                found[member.name] = stream.read()
    except (tarfile.TarError, OSError, EOFError, ValueError) as error:
        raise UserError(f"{where}: no bundle of acr-ray, or damaged ({' '.join(str(error).split())[:100]})") from None
    absent = [name for name in (MANIFEST, *CONTENT, DIGEST) if name not in found]
    if absent:
        raise UserError(f"{where}: no bundle of acr-ray: {absent[0]} is missing")
    return found


def _member(name: str, content: bytes) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(content), 0o644
    header = info.tobuf(format=tarfile.USTAR_FORMAT)
    return header + content + bytes(-len(content) % _BLOCK)


def _json(value: object) -> bytes:
    text = json.dumps(value, sort_keys=True, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return text.encode("ascii") + b"\n"


def _parsed(content: bytes, where: str) -> Any:
    return parse_json(content.decode("utf-8", "replace"), where)
