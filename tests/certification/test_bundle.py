"""Bundles: canonical bytes, every change noticed, forged ones refused, hostile ones harmless."""

import hashlib
import io
import json
import tarfile

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from acr_ray.certification.audit import Audited
from acr_ray.certification.bundle import CLAIMS, COUNTS, DIGEST, IMAGES, MANIFEST, packed, unpacked
from acr_ray.cli.commands import audit, certify
from acr_ray.cli.drivers.bundling import claims
from acr_ray.cli.exits import CommandFailed
from acr_ray.cli.session import RunOptions
from acr_ray.settings import UserError
from acr_ray.storage import Folder
from tests.fakes.models import write_digits_checkpoint

SETTINGS = {"n": 200, "n0": 20, "max_images": 12, "alpha": 0.05, "radii": (0.0, 0.1)}


def write_key(folder, name):
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (folder / f"{name}.pem").write_bytes(private)
    (folder / f"{name}.pub").write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return str(folder / f"{name}.pem"), str(folder / f"{name}.pub")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundle")
    write_digits_checkpoint(folder / "model")
    options = RunOptions(str(folder / "run"), tracking=False)
    certify.run(str(folder / "model"), options, settings=SETTINGS, on_ray=False)
    write_key(folder, "mine")
    write_key(folder, "other")
    audit.bundle(str(folder / "run"), str(folder / "plain.acr"))
    audit.bundle(str(folder / "run"), str(folder / "signed.acr"), sign=str(folder / "mine.pem"))
    return folder


def members(content):
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        return {m.name: archive.extractfile(m).read() for m in archive}


def test_what_was_checked_is_said_and_what_was_not(place, capsys):
    audit.verify(str(place / "signed.acr"), key=str(place / "mine.pub"), redraw=3, checkpoint=str(place / "model"))
    lines = capsys.readouterr().out.splitlines()
    checked = [line for line in lines if line.startswith("checked: ")]
    assert [line.split()[1:3] for line in checked] == [
        ["the", "file"],
        ["it", "was"],
        ["its", "counts"],
        ["redrawn:", "3"],
    ]
    (unchecked,) = [line for line in lines if line.startswith("not checked: ")]
    assert "how the model was trained" in unchecked
    audit.verify(str(place / "plain.acr"))
    said = capsys.readouterr().out
    assert "not checked: who made it: it is not signed" in said and "give --redraw K --checkpoint" in said
    audit.verify(str(place / "signed.acr"))
    assert "not checked: whose key ed25519:" in capsys.readouterr().out


def test_the_same_run_makes_the_same_bytes_wherever_it_lies(place, tmp_path):
    (place / "run").rename(tmp_path / "elsewhere")
    try:
        audit.bundle(str(tmp_path / "elsewhere"), str(tmp_path / "again.acr"))
    finally:
        (tmp_path / "elsewhere").rename(place / "run")
    content = (tmp_path / "again.acr").read_bytes()
    assert content == (place / "plain.acr").read_bytes()
    assert str(place).encode() not in content, "no path of this machine is in it"
    found = json.loads(members(content)[MANIFEST])
    assert found["noise"]["name"] == "lattice/1" and found["environment"]["python"] and len(found["code_sha256"]) == 64


@pytest.mark.parametrize("name", ["plain.acr", "signed.acr"])
def test_every_changed_byte_is_noticed(place, tmp_path, name):
    content = (place / name).read_bytes()
    rng = np.random.default_rng(0)
    places = {
        *rng.integers(0, len(content), 400).tolist(),
        *range(0, 300, 7),
        *range(len(content) - 1030, len(content), 41),
    }
    for at in sorted(places):
        changed = bytearray(content)
        changed[at] ^= 1 << int(rng.integers(0, 8))
        with pytest.raises(UserError, match="^x: [^\n]*$"):
            unpacked(bytes(changed), "x")
    for shorter in (
        content[:-1],
        content[:-512],
        content[: len(content) // 2],
        content + b"\0",
        content + bytes(512),
        b"",
    ):
        with pytest.raises(UserError):
            unpacked(shorter, "x")


def forged(content, **changes):
    """As somebody does it who recomputes every hash."""
    files = members(content)
    files.update({{"claims": CLAIMS, "images": IMAGES, "counts": COUNTS}[k]: v for k, v in changes.items()})
    signature = json.loads(files["signature.json"]) if "signature.json" in files else None
    manifest = json.loads(files[MANIFEST])
    for name in manifest["files"]:
        manifest["files"][name] = {"bytes": len(files[name]), "sha256": hashlib.sha256(files[name]).hexdigest()}
    text = json.dumps(manifest, sort_keys=True, separators=(",", ":")).encode() + b"\n"
    return packed({**files, MANIFEST: text}, signature)


def refused(tmp_path, content, words, **options):
    file = tmp_path / "forged.acr"
    file.write_bytes(content)
    with pytest.raises(CommandFailed) as error:
        audit.verify(str(file), **options)
    assert words in str(error.value), error.value


def test_a_forger_who_recomputes_hashes_is_caught_by_counts_or_by_the_signature(place, tmp_path):
    plain, signed = ((place / name).read_bytes() for name in ("plain.acr", "signed.acr"))
    said = json.loads(members(plain)[CLAIMS])
    better = json.dumps({**said, "acr": said["acr"] + 0.1}).encode()
    refused(tmp_path, forged(plain, claims=better), "claims acr = ")
    fewer = members(plain)[COUNTS].splitlines(keepends=True)
    refused(tmp_path, forged(plain, counts=b"".join(fewer[:-1])), "its counts finish 11 of 12 images only")
    refused(tmp_path, forged(signed, claims=better), "its signature is not one of this content")
    drawn = [json.loads(line) for line in fewer]
    for line in drawn:
        line["counts"] = {str(max(line["counts"], key=line["counts"].get)): sum(line["counts"].values())}
    counts = b"".join(json.dumps(line).encode() + b"\n" for line in drawn)
    refused(tmp_path, forged(plain, counts=counts), "but its counts give")


def test_counts_that_the_model_did_not_draw_are_found_by_drawing_again(place, tmp_path):
    content = (place / "plain.acr").read_bytes()
    lines = [json.loads(line) for line in members(content)[COUNTS].splitlines()]
    moved = next(line for line in lines if line["phase"] == "estimate" and len(line["counts"]) > 1)
    most, least = (f(moved["counts"], key=moved["counts"].get) for f in (max, min))
    moved["counts"][most], moved["counts"][least] = moved["counts"][least], moved["counts"][most]
    counts = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    bundle = unpacked(forged(content, counts=counts), "x")
    bundle.put_files(Folder(tmp_path / "ledger"))
    _, store = bundle.plan.open(Folder(tmp_path / "ledger"))
    honest_looking = json.dumps(claims(Audited("x", bundle.plan, store))).encode()
    file = tmp_path / "forged.acr"
    file.write_bytes(forged(content, counts=counts, claims=honest_looking))
    audit.verify(str(file))  # nothing is wrong with it but that nobody drew it
    with pytest.raises(CommandFailed, match="answers differ"):
        audit.verify(str(file), redraw=100, checkpoint=str(place / "model"))


def test_who_signed_must_be_who_is_asked_for(place, tmp_path):
    signed, mine, other = (str(place / name) for name in ("signed.acr", "mine.pub", "other.pub"))
    audit.verify(signed, key=mine)
    with pytest.raises(CommandFailed, match="not by the --key given"):
        audit.verify(signed, key=other)
    with pytest.raises(CommandFailed, match="is not signed, but --key asks"):
        audit.verify(str(place / "plain.acr"), key=mine)
    rsa = generate_private_key(65537, 2048)
    (tmp_path / "rsa.pem").write_bytes(rsa.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    for key, words in [
        (tmp_path / "rsa.pem", "no Ed25519 key"),
        (tmp_path / "none", "cannot be read"),
        (place / "plain.acr", "no private key"),
    ]:
        with pytest.raises(UserError, match=words):
            audit.bundle(str(place / "run"), str(tmp_path / "x.acr"), sign=str(key))
    with pytest.raises(UserError, match="no public key"):
        audit.verify(signed, key=str(place / "mine.pem"))
    assert not (tmp_path / "x.acr").exists()


def tar(*entries):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for info, content in entries:
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def test_archives_that_would_do_harm_are_refused(place, tmp_path):
    link = tarfile.TarInfo(MANIFEST)
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    for content in [
        tar((tarfile.TarInfo("../../x"), b"x")),
        tar((tarfile.TarInfo("/etc/x"), b"x")),
        tar((link, b"")),
        tar((tarfile.TarInfo(MANIFEST), b"{}"), (tarfile.TarInfo(MANIFEST), b"{}")),
        tar((tarfile.TarInfo(DIGEST), b"")),
        b"\x1f\x8b" + bytes(100),
        b"PK\x03\x04",
        bytes(2048),
    ]:
        with pytest.raises(UserError, match="no bundle of acr-ray"):
            unpacked(content, "x")
    deep = b"[" * 100_000
    refused(tmp_path, forged((place / "plain.acr").read_bytes(), claims=deep), "nested too deep")
    odd = members((place / "plain.acr").read_bytes())[IMAGES].replace(b'"label":', b'"label":9')
    refused(tmp_path, forged((place / "plain.acr").read_bytes(), images=odd), "a label that is no class")


@pytest.mark.parametrize(
    "change", [{"stopping": "radii"}, {"stopping": "distribution", "band": 0.4}, {"noise": "float"}]
)
def test_every_kind_of_run_can_be_bundled(place, tmp_path, change):
    options = RunOptions(str(tmp_path / "run"), tracking=False)
    certify.run(str(place / "model"), options, settings=SETTINGS | change, on_ray=False)
    audit.bundle(str(tmp_path / "run"), str(tmp_path / "b.acr"))
    audit.verify(str(tmp_path / "b.acr"), redraw=2, checkpoint=str(place / "model"))


def test_options_that_do_not_fit_are_one_line(place, tmp_path):
    run, file = str(place / "run"), str(place / "plain.acr")
    for words, message in [
        ([], "RUN: missing"),
        ([run, "--bundle", "x", "--out", "y"], "--bundle: takes one RUN"),
        ([run, run, "--bundle", "x"], "--bundle: takes one RUN"),
        ([run, "--out", "x", "--sign", "k"], "--sign: belongs to --bundle"),
        ([run, "--out", "x", "--key", "k"], "--key: belongs to --verify"),
        ([run, "--verify", file], "--verify: takes no RUN"),
        (["--verify", str(tmp_path / "none.acr")], "not there"),
        (["--verify", file, "--redraw", "2"], "--redraw: needs the model"),
    ]:
        with pytest.raises(UserError, match=message):
            audit.main(words)
