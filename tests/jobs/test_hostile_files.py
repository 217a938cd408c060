"""Every kind of file that is read back, spoilt in thousands of ways: read right, or one line (exit code 2)."""

import json
import os
import shutil
from io import BytesIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

from acr_ray.certification import certificates as certificate_files
from acr_ray.certification.audit import read_run
from acr_ray.certification.redrawing import redraw
from acr_ray.certification.run_plan import RunPlan
from acr_ray.cli.drivers.audit import audited_numbers
from acr_ray.data import open_images, select
from acr_ray.data.decoding import decoded_image
from acr_ray.formats.files import METRICS
from acr_ray.formats.tables import parquet_bytes
from acr_ray.models import load_checkpoint
from acr_ray.reporting import build_report, comparison_table, open_sources
from acr_ray.reporting.summary import summary
from acr_ray.settings import CertifySettings, UserError, load_recipe
from acr_ray.storage import Folder, open_run, tables
from acr_ray.storage.summaries import read_summary
from acr_ray.training.control.channel import ControlChannel
from acr_ray.training.p_a_file import read_counts
from acr_ray.tuning.kept_files import read_entry, read_report
from jobs import pack
from tests.fakes.images import write_cifar10, write_imagenet
from tests.fakes.models import write_digits_checkpoint
from tests.fakes.mutations import spoil_bytes, spoil_json, spoil_table
from tests.reporting.making import GOOD_ROWS, HEADER, certificates, tsv

RECIPE = {
    "name": "mine",
    "data": {"dataset": "digits", "root": None},
    "model": {"architecture": "digits_resnet"},
    "training": {"sigma": 0.5, "epochs": 3, "m": 4, "batch_size": 64, "milestones": [1, 2]},
    "method": {"name": "catrs", "weight": 1.0},
    "discard": {"enabled": True, "p_t": 0.4},
    "attack": {"steps": 2},
}
SUMMARY = {
    "schema_version": 1,
    "acr": 0.2,
    "hard_share": 0.1,
    "certified_accuracy": {"0": 0.5},
    "images": 3,
    "n": 1000,
    "evaluations": 5,
    "model_sha256": "0" * 64,
    "sigma": 0.25,
    "alpha": 0.001,
    "bound": "clopper-pearson",
}


def report_of(path):
    report = build_report(open_sources([str(path)]))
    json.dumps(summary(report), allow_nan=False)
    assert len(report.radii) <= 200
    return comparison_table(report)


def audit_of(folder):
    run = read_run(Folder(folder))
    if run.store.finished:
        parquet_bytes(certificate_files.certificate_table(run.plan, run.store))
        audited_numbers(run, 0.001)
    redraw(run, Folder(folder), 2, 0, lambda name, phase, first, stop: np.zeros(10, dtype=np.int64))


def parquet(**columns):
    stream = BytesIO()
    pq.write_table(pa.table(columns), stream)
    return stream.getvalue()


def picture(kind, mode="RGB"):
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    stream = BytesIO()
    Image.fromarray(pixels).convert(mode).save(stream, kind)
    return stream.getvalue()


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """A good file of each kind: name to (file, how it is read, how it is spoilt beside its bytes)."""
    home = tmp_path_factory.mktemp("files")
    found = {}

    def add(name, content, read, spoil=None, at=None):
        path = at or home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if content is not None:
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        found[name] = (path, read, spoil)
        return path

    recipe = add("recipe.json", json.dumps(RECIPE), lambda p: load_recipe(str(p)), spoil_json)
    add("recipe.yaml", yaml.safe_dump(RECIPE), lambda p: load_recipe(str(p)))
    open_run(Folder(home / "run"), "train", load_recipe(str(recipe)).flat())
    add(
        "run.json",
        None,
        lambda p: open_run(Folder(p.parent), "train", load_recipe(str(recipe)).flat()),
        spoil_json,
        home / "run" / "run.json",
    )
    add("summary.json", json.dumps(SUMMARY), lambda p: read_summary(Folder(p.parent), "certify"), spoil_json)
    add(
        METRICS,
        "".join(json.dumps({"epoch": e, "loss": 0.5, "histogram": [1, 2]}) + "\n" for e in range(3)),
        lambda p: ControlChannel(Folder(p.parent)).records(),
        spoil_json,
    )
    # A certification run: plan, images, ledger.
    folder = home / "certify"
    names = [f"test/{i}" for i in range(3)]
    settings = CertifySettings(sigma=0.25, n=1000, n0=100, block=100, dataset="digits")
    Folder(folder).make_writable()
    RunPlan(settings, names, [0, 1, 2], [0, 1, 2], 10, "0" * 64, "float32", "d", list("0123456789")).save(
        Folder(folder)
    )
    lines = [
        {
            "image": name,
            "phase": phase,
            "first": 0,
            "stop": draws // 100,
            "counts": {"0": draws - 3, "1": 3},
            "seconds": 1.0,
        }
        for name in names
        for phase, draws in (("select", 100), ("estimate", 1000))
    ]
    for name, spoil in (("plan.json", spoil_json), ("images.parquet", spoil_table)):
        add(name, None, lambda p: audit_of(p.parent), spoil, folder / name)
    add(
        "ledger",
        "".join(json.dumps(line) + "\n" for line in lines),
        lambda p: audit_of(p.parent.parent),
        spoil_json,
        folder / "ledger" / "00000000.jsonl",
    )
    # A search's small files.
    counted = {"epoch": 3, "forward_passes": 10, "backward_passes": 5}
    add(
        "entry.json",
        json.dumps({**counted, "folder": "x", "kept": True}),
        lambda p: read_entry(Folder(p.parent), p.name),
        spoil_json,
    )
    add(
        "trial.json",
        json.dumps({**counted, "trial": "a", "status": "finished"}),
        lambda p: read_report(Folder(p.parent), p.name),
        spoil_json,
    )
    # Sources of reports.
    about = {"planned_images": 4, "incomplete": True, "n": 1000}
    certificates(home / "source" / "certificates.parquet", [990, 500, 800], summary=about)
    add("certificates.parquet", None, report_of, spoil_table, home / "source" / "certificates.parquet")
    certificates(home / "beside" / "certificates.parquet", [990, 500, 800])
    add(
        "summary beside",
        json.dumps(SUMMARY),
        lambda p: report_of(p.parent),
        spoil_json,
        home / "beside" / "summary.json",
    )
    tsv(home, [HEADER, *GOOD_ROWS])
    add("noise_0.25.tsv", None, report_of)
    add("a_0.25.csv", "x,y\n0.0,1.0\n0.5,0.8\n0.9,0.4\n0.999,0.1\n", report_of)
    # Models.
    write_digits_checkpoint(home / "model")
    add("model.json", None, lambda p: load_checkpoint(str(p.parent)), spoil_json, home / "model" / "model.json")
    add("weights", None, lambda p: load_checkpoint(str(p.parent)), None, home / "model" / "model.safetensors")
    # Data.
    pack.main(["--data.root", str(write_imagenet(home / "imagenet")), "--out", str(home / "pack"), "--split", "train"])

    def packed(path):
        images = open_images("imagenet", str(home / "pack"), "train")
        images.load([0, len(images) - 1], None)
        images.fingerprint()

    add("pack.json", None, packed, spoil_json, home / "pack" / "train" / "pack.json")
    add("offsets.npy", None, packed, None, home / "pack" / "train" / "offsets.npy")
    add("images.bin", None, packed, None, home / "pack" / "train" / "images.bin")
    write_cifar10(home / "cifar", per_batch=2, test=2)
    add(
        "cifar",
        None,
        lambda p: open_images("cifar10", str(p.parent), "test").fingerprint(),
        None,
        home / "cifar" / "cifar-10-batches-py" / "test_batch",
    )
    digits = open_images("digits", None, "test").subset(range(3))
    columns = {"image": list(digits.names), "label": digits.labels, "p_a": [0.1, 0.5, 1.0], "draws": [10] * 3}
    add(
        "p_a.parquet",
        parquet(**columns, purpose=["discard"] * 3),
        lambda p: read_counts(str(p), digits, 10),
        spoil_table,
    )
    add("names.txt", "\n".join(digits.names), lambda p: select(digits, image_list=str(p)))
    pictures = {"i.jpg": ("JPEG", "RGB"), "i.png": ("PNG", "RGBA"), "i.gif": ("GIF", "P"), "i.tif": ("TIFF", "CMYK")}
    for name, (kind, mode) in pictures.items():
        add(name, picture(kind, mode), lambda p: decoded_image(p.read_bytes(), p))
    return found


def answer(read, path):
    """What reading gave: ``"read"``, or the line of the refusal."""
    try:
        read(path)
    except UserError as error:
        assert str(error) and "\n" not in str(error) and len(str(error)) <= 4000
        return str(error)
    return "read"


KINDS = (
    "recipe.json", "recipe.yaml", "run.json", "summary.json", METRICS, "plan.json", "images.parquet", "ledger",
    "certificates.parquet", "summary beside", "noise_0.25.tsv", "a_0.25.csv", "model.json", "weights", "pack.json",
    "offsets.npy", "images.bin", "entry.json", "trial.json", "cifar", "p_a.parquet", "names.txt",
    "i.jpg", "i.png", "i.gif", "i.tif",
)  # fmt: skip
EACH = 100  # 2,600 in all


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings("ignore")
def test_spoilt_files(kind, places):
    path, read, spoil = places[kind]
    good, rng = path.read_bytes(), np.random.default_rng(list(kind.encode()))
    assert answer(read, path) == "read"
    answers = []
    try:
        for number in range(EACH):
            path.write_bytes(spoil(good, rng) if spoil and number % 3 else spoil_bytes(good, rng))
            answers.append(answer(read, path))
    finally:
        path.write_bytes(good)
    assert answer(read, path) == "read", "reading a spoilt file has changed something"
    assert sum(said != "read" for said in answers) >= EACH // 5, "this spoils nothing"


# As if they were not there (and run.json is written anew): what is no file is not listed.
UNSEEN = (METRICS, "summary beside", "ledger", "run.json")


@pytest.mark.parametrize("kind", KINDS)
def test_pipes_devices_and_folders_in_place_of_files(kind, places):
    path, read, _ = places[kind]
    if kind.startswith("i."):
        return  # their bytes are read by others
    aside = path.with_name(path.name + ".aside")
    path.rename(aside)
    try:
        for make in (lambda: os.mkfifo(path), lambda: path.symlink_to("/dev/zero"), path.mkdir):
            make()
            assert answer(read, path) != "read" or kind in UNSEEN
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    finally:
        aside.rename(path)


def test_a_few_bytes_that_stand_for_very_many_rows_are_not_written_out(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "MOST_ROWS", 50_000)
    content = parquet(image=pa.array(["x"] * 60_000).dictionary_encode(), idx=[0] * 60_000)
    with pytest.raises(UserError, match="60,000 rows; at most 50,000"):
        tables.read_table(content, {"image": "text", "idx": "whole"}, "here")
    monkeypatch.setattr(tables, "MOST_ROWS", 10**6)
    monkeypatch.setattr(tables, "MOST_BYTES", 10**8)
    long = pa.DictionaryArray.from_arrays(pa.array([0] * 60_000, pa.int32()), pa.array(["x" * 100_000]))
    content = parquet(image=long, idx=[0] * 60_000)
    assert len(content) < 10**6
    with pytest.raises(UserError, match="the text in column image takes more than 100,000,000 bytes"):
        tables.read_table(content, {"image": "text", "idx": "whole"}, "here")


@pytest.mark.parametrize("sigma", [1e6, 1e30, 1e300])
def test_a_table_s_width_does_not_follow_a_file_s_sigma(sigma, tmp_path):
    path = certificates(tmp_path / "certificates.parquet", [990, 500, 800], sigma=sigma)
    with pytest.raises(UserError, match="sigma is .* at most 100"):
        open_sources([path])
    report = build_report(open_sources([certificates(tmp_path / "b" / "c.parquet", [990, 500, 800], sigma=100.0)]))
    assert len(report.radii) <= 24
