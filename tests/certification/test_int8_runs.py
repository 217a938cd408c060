"""Certificates of int8 networks: made once, kept, named, drawn again; never taken for those of the float32 network."""

import io
import json
import tarfile

import pyarrow.parquet as pq
import pytest
from torch import nn

import acr_ray
from acr_ray.certification.bundle import MANIFEST, packed, unpacked
from acr_ray.certification.sampler import Sampler
from acr_ray.cli.commands import audit, certify, gate
from acr_ray.cli.drivers import certification_plan
from acr_ray.cli.drivers import int8 as driver
from acr_ray.cli.session import RunOptions
from acr_ray.formats.files import INT8, LEDGER
from acr_ray.models import load_checkpoint
from acr_ray.reporting import build_report, open_source
from acr_ray.settings import CertifySettings, UserError
from acr_ray.smoothing import int8_network
from acr_ray.smoothing.int8_network import int8_problem
from acr_ray.smoothing.int8_parameters import sha256_of
from tests.fakes.jobs import run as command
from tests.fakes.models import write_digits_checkpoint


class Flat(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Flatten(), nn.Linear(64, 10))


BUDGET = {"n": 300, "n0": 20, "max_images": 12, "block": 100}
needs_vnni = pytest.mark.skipif(int8_problem() is not None, reason=str(int8_problem()))


@pytest.fixture
def checkpoint(tmp_path):
    return str(write_digits_checkpoint(tmp_path / "model", sharper=3))


def run(checkpoint, out, overwrite=False, **settings):
    options = RunOptions(str(out), tracking=False, overwrite=overwrite)
    return certify.run(checkpoint, options, settings={**BUDGET, **settings}, on_ray=False)


def counts(out):
    return pq.read_table(out / "certificates.parquet")["counts"].to_pylist()


@needs_vnni
def test_a_run_keeps_its_int8_network_and_its_certificates_name_it(checkpoint, tmp_path, capsys):
    found = run(checkpoint, tmp_path / "a", dtype="int8").summary
    sha256 = sha256_of((tmp_path / "a" / INT8).read_bytes())
    assert found["arithmetic"] == f"int8 on cpu, batch norm folded, int8 network {sha256}"
    compared = found["int8"]
    assert compared["sha256"] == sha256 and compared["calibration"]["split"] == "train"
    assert compared["agreement"] > 0.9 and abs(compared["accuracy"] - compared["accuracy_float32"]) < 0.1
    assert "the same class on" in capsys.readouterr().out
    table = pq.read_table(tmp_path / "a" / "certificates.parquet")
    assert set(table["dtype"].to_pylist()) == {"int8"}
    assert json.loads(table.schema.metadata[b"acr_ray.summary"])["arithmetic"] == found["arithmetic"]
    run(checkpoint, tmp_path / "b", dtype="int8", seed=5)
    assert (tmp_path / "b" / INT8).read_bytes() == (tmp_path / "a" / INT8).read_bytes(), "runs can be merged"
    run(checkpoint, tmp_path / "c", dtype="int8", block=37)
    assert counts(tmp_path / "c") == counts(tmp_path / "a") != counts(tmp_path / "b"), "the block decides nothing"


@needs_vnni
def test_a_run_that_goes_on_draws_with_the_network_it_has(checkpoint, tmp_path, monkeypatch):
    out = tmp_path / "a"
    run(checkpoint, out, dtype="int8")
    before = counts(out)
    file = next((out / LEDGER).iterdir())
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(lines[: len(lines) // 2]))
    (out / "summary.json").unlink()
    monkeypatch.setattr(driver, "find_parameters", lambda *_: pytest.fail("calibrated again"))
    assert run(checkpoint, out, dtype="int8").summary["int8"]["images"] == 12
    assert counts(out) == before
    monkeypatch.undo()
    content = (out / INT8).read_bytes()
    other = content[:-1] + bytes([content[-1] ^ 1])  # the last bias, in its last bit
    (out / INT8).write_bytes(other)
    with pytest.raises(UserError, match="arithmetic was"):
        run(checkpoint, out, dtype="int8")
    with pytest.raises(UserError, match="dtype was 'int8'"):
        run(checkpoint, out)
    run(checkpoint, out, overwrite=True)
    assert not (out / INT8).exists(), "a run in float32 has none"


@needs_vnni
def test_an_audit_draws_again_with_the_runs_own_network(checkpoint, tmp_path, capsys):
    run(checkpoint, tmp_path / "a", dtype="int8")
    again = [str(tmp_path / "a"), "--checkpoint", checkpoint, "--redraw", "6"]
    audit.main([*again, "--out", str(tmp_path / "audit")])
    assert capsys.readouterr().out.count("agrees") == 6
    (tmp_path / "a" / INT8).write_bytes(b"something else")
    with pytest.raises(UserError, match="not the int8 network of"):
        audit.main([*again, "--out", str(tmp_path / "other")])


@needs_vnni
def test_a_bundle_holds_the_int8_network_and_draws_again_with_it(checkpoint, tmp_path, capsys):
    run(checkpoint, tmp_path / "a", dtype="int8")
    network = (tmp_path / "a" / INT8).read_bytes()
    bundle = str(tmp_path / "bundle")
    audit.main([str(tmp_path / "a"), "--bundle", bundle])
    (tmp_path / "a" / INT8).unlink()  # nothing but the bundle is needed
    capsys.readouterr()
    redraw = ["--checkpoint", checkpoint, "--redraw", "6"]
    audit.main(["--verify", bundle, *redraw])
    said = capsys.readouterr().out
    assert said.count("agrees") == 6 and "not checked: that its int8 network was made of the model" in said
    content = (tmp_path / "bundle").read_bytes()
    assert unpacked(content, "x").int8 == network and content.count(network) == 1
    start = content.index(network)
    for at in (*range(start - 512, start + 200, 11), start + len(network) - 1, start + len(network)):
        with pytest.raises(UserError, match="^x: [^\n]*$"):
            unpacked(content[:at] + bytes([content[at] ^ 4]) + content[at + 1 :], "x")
    with pytest.raises(UserError, match="--bundle: .*is not here"):
        audit.main([str(tmp_path / "a"), "--bundle", str(tmp_path / "other")])
    (tmp_path / "old").write_bytes(with_network(content, None))  # as they were before they held it
    audit.main(["--verify", str(tmp_path / "old")])
    with pytest.raises(UserError, match="--redraw: .*is not here, and nothing else draws its counts"):
        audit.main(["--verify", str(tmp_path / "old"), *redraw])


@needs_vnni
def test_a_bundle_with_another_int8_network_is_refused(checkpoint, tmp_path):
    for dtype in ("int8", "float32"):
        run(checkpoint, tmp_path / dtype, dtype=dtype)
        audit.main([str(tmp_path / dtype), "--bundle", str(tmp_path / f"{dtype}.acr")])
    network = (tmp_path / "int8" / INT8).read_bytes()
    content = (tmp_path / "int8.acr").read_bytes()
    other = network[:-1] + bytes([network[-1] ^ 1])
    with pytest.raises(UserError, match="not the network that its counts are of"):
        unpacked(with_network(content, other), "x")
    with pytest.raises(UserError, match="int8.safetensors is not what its manifest.json says"):
        unpacked(packed({**members(content), INT8: other}), "x")
    taken = {name: part for name, part in members(content).items() if name != INT8}
    with pytest.raises(UserError, match="int8.safetensors is not what its manifest.json says"):
        unpacked(packed(taken), "x")
    plain = (tmp_path / "float32.acr").read_bytes()
    assert unpacked(plain, "x").int8 is None
    with pytest.raises(UserError, match="not the network that its counts are of"):
        unpacked(with_network(plain, network), "x")


def members(content):
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        return {m.name: archive.extractfile(m).read() for m in archive}


def with_network(content, network):
    """A bundle with this int8 network, or none, and every hash computed anew."""
    files = {name: part for name, part in members(content).items() if name != INT8}
    manifest = json.loads(files[MANIFEST])
    manifest["files"].pop(INT8, None)
    if network is not None:
        files[INT8] = network
        manifest["files"][INT8] = {"bytes": len(network), "sha256": sha256_of(network)}
    text = json.dumps(manifest, sort_keys=True, separators=(",", ":")).encode() + b"\n"
    return packed({**files, MANIFEST: text})


@needs_vnni
def test_a_report_does_not_take_it_for_the_float32_network(checkpoint, tmp_path):
    for name, dtype in (("plain", "float32"), ("int8", "int8")):
        run(checkpoint, tmp_path / name, dtype=dtype)
    sources = [open_source((name, str(tmp_path / name))) for name in ("plain", "int8")]
    report = build_report(sources)
    assert not report.comparisons[0].same_model
    assert any("several classifiers" in text and "int8 network" in text for text in report.warnings)
    assert not any("several classifiers" in text for text in build_report(sources[:1]).warnings)


@needs_vnni
def test_images_that_are_objects_are_calibrated_on_only_if_that_is_said(checkpoint, tmp_path):
    from acr_ray.data import open_images

    images, model = open_images("digits", None, "test"), load_checkpoint(checkpoint)
    given = {"model": model, "dataset": images, "sigma": 0.25, "dtype": "int8", **BUDGET}
    with pytest.raises(UserError, match="no train split at hand"):
        acr_ray.certify(out=str(tmp_path / "a"), **given)
    found = acr_ray.certify(out=str(tmp_path / "a"), calibration="test", **given)
    assert found.summary["int8"]["calibration"]["split"] == "test"


@needs_vnni
def test_a_gate_draws_the_new_models_int8_network_if_the_old_run_is_of_one(checkpoint, tmp_path):
    run(checkpoint, tmp_path / "old", dtype="int8")
    options = RunOptions(str(tmp_path / "gate"), tracking=False)
    asked = {"against": str(tmp_path / "old"), "require": ["hard_share <= +5pt"], "on_ray": False}
    found = gate.run(checkpoint, options, **asked)
    assert found.summary["evaluations"] > 0
    assert (tmp_path / "gate" / INT8).read_bytes() == (tmp_path / "old" / INT8).read_bytes()
    assert gate.run(checkpoint, options, **asked).summary == found.summary


@needs_vnni
@pytest.mark.parametrize("rows", [None, 7, 100])
def test_passes_that_images_share_have_the_same_counts_of_any_size(checkpoint, tmp_path, rows):
    asked = {"dtype": "int8", "stopping": "radii", "radii": (0.1, 0.3)}
    run(checkpoint, tmp_path / "a", **asked)
    run(checkpoint, tmp_path / "b", **asked, pass_rows=rows)
    assert counts(tmp_path / "a") == counts(tmp_path / "b")


@needs_vnni
def test_a_plan_is_of_the_int8_network(checkpoint, monkeypatch, capsys):
    made = []
    monkeypatch.setattr(certification_plan, "Sampler", lambda *arguments: made.append(arguments) or Sampler(*arguments))
    found = certify.plan(checkpoint, RunOptions(None), settings={**BUDGET, "dtype": "int8"})
    assert made[0][-1].int8 is not None and made[0][-1].dtype == "int8" and found.rate > 0
    assert "int8: calibrating on 128 noisy train images" in capsys.readouterr().out


@needs_vnni
@pytest.mark.ray
def test_actors_have_the_counts_of_this_process(head, checkpoint, tmp_path):
    told = [f"--{name.replace('_', '-')}={value}" for name, value in BUDGET.items()]
    arguments = ("--out", tmp_path / "actors", "--dtype", "int8", "--actors", 2, "--no-tracking", *told)
    command("certify", checkpoint, *arguments, head=head, cwd=tmp_path)
    run(checkpoint, tmp_path / "here", dtype="int8")
    assert (tmp_path / "actors" / INT8).read_bytes() == (tmp_path / "here" / INT8).read_bytes()
    assert counts(tmp_path / "actors") == counts(tmp_path / "here")


def test_where_int8_cannot_be_had_it_is_one_line_before_anything_is_written(checkpoint, tmp_path, monkeypatch):
    out = tmp_path / "a"
    monkeypatch.setattr(int8_network, "processor_flags", lambda: {"avx2"})
    with pytest.raises(UserError, match="no VNNI"):
        run(checkpoint, out, dtype="int8")
    monkeypatch.setattr(int8_network, "processor_flags", lambda: {"avx_vnni"})
    with pytest.raises(UserError, match="no convolution"):
        acr_ray.certify(Flat().eval(), "digits", sigma=0.25, dtype="int8", out=str(out), **BUDGET)
    monkeypatch.undo()
    for settings, said in [({"compile": True}, "not compiled"), ({"device": "cuda"}, "arithmetic of CPUs")]:
        with pytest.raises(UserError, match=said):
            CertifySettings.build({"sigma": 0.25, "dataset": "digits", "dtype": "int8", **settings}, "certify")
    with pytest.raises(UserError, match="belongs to dtype int8"):
        run(checkpoint, out, calibration="test")
    assert not out.exists()


def test_no_run_of_before_is_another_for_the_new_setting():
    plain = CertifySettings(sigma=0.25, dataset="digits")
    assert "calibration" not in plain.identity()
    assert plain.change({"dtype": "int8"}, "certify").identity()["calibration"] == "train"
