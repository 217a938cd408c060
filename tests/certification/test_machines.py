"""Which device and which torch drew: in the run's record, its certificates and its summary; an audit says if others."""

import json

import pyarrow.parquet as pq
import torch

from acr_ray.certification import machine as machines
from acr_ray.certification.coordinator import Coordinator
from acr_ray.certification.machine import machine_of
from acr_ray.certification.pool import Machine, SamplerReady
from acr_ray.cli.commands import audit, certify
from acr_ray.cli.drivers.drawn_by import told_if_other
from acr_ray.cli.session import RunOptions
from acr_ray.smoothing import processor
from tests.fakes.models import write_digits_checkpoint

A, B = Machine("NVIDIA H100 80GB HBM3", "2.15.0+cu132"), Machine("NVIDIA A100-SXM4-80GB", "2.11.0+cu130")
SETTINGS = {"n": 300, "n0": 20, "max_images": 6, "block": 100}


def run(checkpoint, out):
    return certify.run(checkpoint, RunOptions(str(out), tracking=False), settings=SETTINGS, on_ray=False)


def said(out):
    metadata = pq.read_schema(out / "certificates.parquet").metadata
    return json.loads(metadata[b"acr_ray.summary"])["drawn_by"]


def test_a_run_names_all_machines_that_drew_it_and_an_audit_another(tmp_path, monkeypatch, capsys):
    checkpoint, out = str(write_digits_checkpoint(tmp_path / "model", sharper=3)), tmp_path / "a"
    here = {"device": machine_of("cpu").device, "torch": str(torch.__version__)}
    assert run(checkpoint, out).summary["drawn_by"] == said(out) == [here]
    record = json.loads((out / "run.json").read_text())
    assert record["drawn_by"] == [here] and "drawn_by" not in record["identity"]
    # The second half is drawn elsewhere.
    ledger = next((out / "ledger").iterdir())
    lines = ledger.read_text().splitlines(keepends=True)
    ledger.write_text("".join(lines[: len(lines) // 2]))
    (out / "summary.json").unlink()
    monkeypatch.setattr("acr_ray.certification.sampler.machine_of", lambda device: A)
    both = sorted([here, {"device": A.device, "torch": A.torch}], key=lambda one: one["device"])
    assert run(checkpoint, out).summary["drawn_by"] == said(out) == both
    again = [str(out), "--checkpoint", checkpoint, "--redraw", "2"]
    audit.main([*again, "--out", str(tmp_path / "same")])
    assert "drawn again with" not in capsys.readouterr().out
    assert said(tmp_path / "same") == both
    monkeypatch.setattr(machines, "machine_of", lambda device: B)
    audit.main([*again, "--out", str(tmp_path / "other")])
    printed = capsys.readouterr().out
    assert f"drawn again with another device ({B}) than the ledger's" in printed and str(A) in printed
    bundle = str(tmp_path / "bundle")
    audit.main([str(out), "--bundle", bundle])
    audit.main(["--verify", bundle])
    assert str(A).encode() in (tmp_path / "bundle").read_bytes()


def test_the_line_of_an_audit():
    assert told_if_other(A, [B, A]) == told_if_other(A, []) == ""
    assert told_if_other(Machine(A.device, "3.0"), [A]).startswith("drawn again with another torch (")


def test_the_coordinator_gathers_what_its_samplers_say():
    class Pool:
        def start(self):
            return 0

    gathered = Coordinator.__new__(Coordinator)
    gathered.samplers, gathered.machines = {k: type("S", (), {"ready": False})() for k in range(3)}, set()
    for number, machine in enumerate((A, None, B)):
        Coordinator._handle(gathered, SamplerReady(number, machine))
    assert gathered.machines == {A, B} and all(state.ready for state in gathered.samplers.values())


def test_the_processor_is_named_by_linux_and_by_its_kind_elsewhere(tmp_path, monkeypatch):
    place = tmp_path / "cpuinfo"
    place.write_text(
        "processor\t: 0\nmodel name\t: A Processor @ 2 GHz\nflags\t\t: fpu avx512_vnni amx_int8\n\nflags: x\n"
    )
    monkeypatch.setattr(processor, "PLACE", place)
    processor._said.cache_clear()
    assert processor.processor_name() == "A Processor @ 2 GHz"
    assert processor.processor_flags() == {"fpu", "avx512_vnni", "amx_int8"}
    assert machine_of("cpu").device.startswith("A Processor @ 2 GHz (") and machine_of("cpu").device.endswith("AMX)")
    place.unlink()
    processor._said.cache_clear()
    assert processor.processor_name() and processor.processor_flags() == frozenset()
    processor._said.cache_clear()
