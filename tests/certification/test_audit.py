"""Audits: radii from the ledger at another alpha, ledgers merged, lines drawn again."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from acr_ray.certification.audit import merge, read_run
from acr_ray.certification.run_plan import RunPlan
from acr_ray.certification.work_items import BlockRange
from acr_ray.cli.exits import CommandFailed
from acr_ray.reporting import open_source
from acr_ray.settings import CertifySettings, UserError
from acr_ray.smoothing.bounds import lower_bound
from acr_ray.smoothing.two_class import two_class_p_lower
from acr_ray.storage import Folder
from jobs import audit

SETTINGS = CertifySettings(sigma=0.5, dataset="digits", n=1000, block=500)


def write_run(path, images, shares, *, finished=None, model="ab", **changes):
    """A certified run of these images (numbers); ``shares`` of its estimation draws give class ``image % 3``."""
    settings = SETTINGS.change(changes)
    plan = RunPlan(
        settings=settings,
        names=[f"d/{i}" for i in images],
        idx=list(images),
        labels=[i % 3 for i in images],
        num_classes=3,
        model_sha256=model,
        arithmetic="float32 on cpu",
        data="-".join(map(str, images)),
        class_names=("0", "1", "2"),
    )
    folder = Folder(path)
    plan.save(folder)
    ledger, store = plan.open(folder)
    lines = []
    estimate = store.phases["estimate"]
    for position, (image, share) in list(enumerate(zip(images, shares, strict=True)))[:finished]:
        lines.append((BlockRange(position, "select", 0, 1), {image % 3: 90, (image + 1) % 3: 10}, 0.1))
        for block in range(estimate.blocks):
            counted = estimate.counted(block)
            top = round(share * counted)
            counts = {image % 3: top, (image + 1) % 3: counted - top}
            lines.append((BlockRange(position, "estimate", block, block + 1), counts, 0.2))
    ledger.append(lines)
    return str(path)


def rows(out):
    return {row["image"]: row for row in pq.read_table(out / "certificates.parquet").to_pylist()}


def test_another_alpha_needs_no_draws(tmp_path, capsys):
    run = write_run(tmp_path / "run", [0, 1, 2], [0.9, 0.7, 0.52])
    audit.main([run, "--out", str(tmp_path / "audit"), "--alpha", "0.2"])
    found = rows(tmp_path / "audit")
    for image, count in (("d/0", 900), ("d/1", 700), ("d/2", 520)):
        assert found[image]["p_lower"] == float(lower_bound(count, 1000, 0.2)) and found[image]["alpha"] == 0.2
    assert found["d/2"]["outcome"] == "certified", "not at alpha = 0.001, but at 0.2"
    assert read_run(Folder(run)).store.finished[2].outcome == "abstained"
    assert open_source(str(tmp_path / "audit")).alpha == 0.2
    assert "with probability 0.999, at least" in capsys.readouterr().out


def test_a_randomised_bound_is_a_little_higher(tmp_path):
    run = write_run(tmp_path / "run", [0, 1, 2], [0.9, 0.7, 0.6])
    plain, randomized = read_run(Folder(run)), read_run(Folder(run), bound="randomized")
    for i in range(3):
        low, high = plain.store.finished[i].p_lower, randomized.store.finished[i].p_lower
        assert low <= high <= float(lower_bound([900, 700, 600][i] + 1, 1000, 0.001))
    assert any(randomized.store.finished[i].p_lower > plain.store.finished[i].p_lower for i in range(3))


def test_another_kind_of_certificate_needs_no_draws(tmp_path):
    run = write_run(tmp_path / "run", [0, 1, 2], [0.9, 0.6, 0.52])
    audit.main([run, "--out", str(tmp_path / "audit"), "--certificate", "two-class"])
    found = rows(tmp_path / "audit")
    for image, count in (("d/0", 900), ("d/1", 600), ("d/2", 520)):
        row = found[image]
        assert (row["bound"], row["certificate"], row["count_second"]) == ("two-class/1", "two-class", 1000 - count)
        assert row["p_lower"] == float(two_class_p_lower(count, 1000 - count, 1000, 0.001))
        assert dict(zip(row["classes"], row["class_counts"], strict=True))[row["predicted"]] == count
    assert json.loads((tmp_path / "audit" / "summary.json").read_text())["certificate"] == "two-class"
    source = open_source(str(tmp_path / "audit"))
    assert (source.certificate, source.rows.radius[0] > 0.3) == ("two-class", True)


def test_merged_two_class_runs_are_judged_by_all_their_draws(tmp_path):
    first = write_run(tmp_path / "a", [0, 1], [0.9, 0.6])
    second = write_run(tmp_path / "b", [1, 2], [0.62, 0.8], seed=7)
    audit.main([first, second, "--out", str(tmp_path / "audit"), "--certificate", "two-class"])
    row = rows(tmp_path / "audit")["d/1"]
    assert (row["n"], row["count_top"], row["count_second"]) == (2000, 1220, 780)
    assert row["p_lower"] == float(two_class_p_lower(1220, 780, 2000, 0.001))


def test_kinds_are_not_merged(tmp_path):
    first = write_run(tmp_path / "a", [0], [0.9])
    second = write_run(tmp_path / "b", [1], [0.9], certificate="two-class")
    with pytest.raises(UserError, match="certificate is two-class, but one-class in"):
        merge([read_run(Folder(first)), read_run(Folder(second))])


def test_merging_adds_draws_of_the_same_image_and_other_images(tmp_path):
    a = write_run(tmp_path / "a", [0, 1, 2], [0.9, 0.7, 0.6], seed=1)
    b = write_run(tmp_path / "b", [1, 2, 3], [0.8, 0.5, 0.9], seed=2, n=2000)
    audit.main([a, b, "--out", str(tmp_path / "merged")])
    found = rows(tmp_path / "merged")
    assert {name: (row["n"], row["count_top"]) for name, row in found.items()} == {
        "d/0": (1000, 900),
        "d/1": (3000, 700 + 1600),
        "d/2": (3000, 600 + 1000),
        "d/3": (2000, 1800),
    }
    assert found["d/1"]["p_lower"] == float(lower_bound(2300, 3000, 0.001))
    source = open_source(str(tmp_path / "merged"))
    assert source.images == 4 and not source.partial
    assert json.loads((tmp_path / "merged" / "summary.json").read_text())["evaluations"] == 3 * 1100 + 3 * 2100


def test_draws_that_two_runs_share_are_counted_once(tmp_path):
    """The same seed: the smaller n is the beginning of the larger."""
    a = write_run(tmp_path / "a", [0], [0.9], seed=1, n=2000)
    b = write_run(tmp_path / "b", [0], [0.9], seed=1)
    c = write_run(tmp_path / "c", [0], [0.8], seed=3)
    merged = merge([read_run(Folder(run)) for run in (b, a, c)])
    assert merged.store.finished[0].n == 3000 and merged.store.finished[0].counts[0] == 1800 + 800
    d = write_run(tmp_path / "d", [0], [0.9], seed=1, block=250)
    with pytest.raises(UserError, match="share a part of their noise"):
        merge([read_run(Folder(run)) for run in (a, d)])


def test_images_that_no_run_has_finished_stay_missing(tmp_path):
    a = write_run(tmp_path / "a", [0, 1, 2], [0.9] * 3, finished=2, seed=1)
    b = write_run(tmp_path / "b", [1, 4], [0.9] * 2, finished=1, seed=2)
    audit.main([a, b, "--out", str(tmp_path / "merged")])
    source = open_source(str(tmp_path / "merged"))
    assert source.incomplete == "incomplete: 2 of 4"
    summary = json.loads((tmp_path / "merged" / "summary.json").read_text())
    assert summary["incomplete"] and (summary["images"], summary["planned_images"]) == (2, 4)
    assert summary["certified_accuracy"]["0"] == 0.5, "what is missing counts as not robust"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"sigma": 0.25}, "sigma is 0.25, but 0.5 in"),
        ({"alpha": 0.01}, "alpha is 0.01, but 0.001"),
        ({"model": "cd"}, "model_sha256 is cd, but ab"),
        ({"split": "train"}, "split is train, but test"),
        ({"stop_when_wrong": True}, "only runs with a fixed n"),
    ],
)
def test_runs_that_certify_something_else_are_not_merged(tmp_path, changes, said):
    a = write_run(tmp_path / "a", [0, 1], [0.9, 0.8], seed=1)
    b = write_run(tmp_path / "b", [0, 1], [0.9, 0.8], seed=2, **changes)
    with pytest.raises(UserError, match=said):
        merge([read_run(Folder(run)) for run in (a, b)])


def test_bad_input_is_one_line_and_writes_nothing(tmp_path):
    run = write_run(tmp_path / "run", [0, 1], [0.9, 0.8])
    few = write_run(tmp_path / "few", [0], [0.9], n=20)
    out = tmp_path / "audit"
    for argv, said in [
        ([str(tmp_path / "none")], "no certification run"),
        ([run, "--redraw", "3"], "--checkpoint"),
        ([run, "--alpha", "1.5"], "--alpha"),
        ([few, "--alpha", "1e-9"], "too few draws"),
        ([run, "--out", run], "is one of the RUNs"),
    ]:
        with pytest.raises((UserError, SystemExit), match=said):
            audit.main([*argv, *([] if "--out" in argv else ["--out", str(out)])])
    assert not out.exists()


def test_a_sequential_run_is_read_with_its_own_alpha_only(tmp_path):
    plan = RunPlan(
        settings=SETTINGS.change({"stopping": "radii"}),
        names=["d/0"],
        idx=[0],
        labels=[0],
        num_classes=3,
        model_sha256="ab",
        arithmetic="float32 on cpu",
        data="x",
        class_names=("0", "1", "2"),
    )
    plan.save(Folder(tmp_path))
    assert read_run(Folder(tmp_path)).store.finished == {}
    assert read_run(Folder(tmp_path), alpha=0.001)
    with pytest.raises(UserError, match="--stopping fixed only"):
        read_run(Folder(tmp_path), alpha=0.01)


def test_lines_drawn_again_agree_and_a_forged_one_does_not(tmp_path, capsys):
    from acr_ray.cli.drivers.redraw import drawer
    from acr_ray.data import open_images
    from tests.fakes.models import write_digits_checkpoint

    checkpoint = write_digits_checkpoint(tmp_path / "model", sharper=3)
    card = json.loads((checkpoint / "model.json").read_text())
    images = open_images("digits", None, "test").subset(range(7))
    settings = CertifySettings(sigma=0.25, dataset="digits", n=1200, block=500, seed=3)
    plan = RunPlan(
        settings=settings,
        names=images.names,
        idx=images.idx,
        labels=images.labels,
        num_classes=10,
        model_sha256=card["sha256"],
        arithmetic="float32 on cpu",
        data=images.fingerprint(),
        class_names=images.class_names,
    )
    folder = Folder(tmp_path / "run")
    plan.save(folder)
    ledger, store = plan.open(folder)
    draw = drawer(read_run(folder), str(checkpoint), None)
    lines = []
    for position in range(7):
        for phase in store.phases.values():
            counts = draw(images.names[position], phase, 0, phase.blocks)
            lines.append(
                (BlockRange(position, phase.name, 0, phase.blocks), {c: int(n) for c, n in enumerate(counts)}, 0.1)
            )
    ledger.append([(s, {c: n for c, n in counts.items() if n}, t) for s, counts, t in lines])
    arguments = [str(tmp_path / "run"), "--checkpoint", str(checkpoint), "--redraw", "14"]
    audit.main([*arguments, "--out", str(tmp_path / "first")])
    assert capsys.readouterr().out.count("agrees") == 14
    file = tmp_path / "run" / "ledger" / "00000000.jsonl"
    record = json.loads(file.read_text().splitlines()[3])
    top = max(record["counts"], key=record["counts"].get)
    record["counts"] = {top: sum(record["counts"].values())}
    text = file.read_text().splitlines()
    file.write_text("\n".join([*text[:3], json.dumps(record), *text[4:]]) + "\n")
    with pytest.raises(CommandFailed, match="1 lines"):
        audit.main([*arguments, "--out", str(tmp_path / "second")])
    assert "DIFFERS" in capsys.readouterr().out
    other = write_digits_checkpoint(tmp_path / "other", sharper=2)
    with pytest.raises(UserError, match="not the model"):
        audit.main([*arguments[:2], str(other), *arguments[3:], "--out", str(tmp_path / "third")])


def test_counts_of_the_ledger_decide_not_the_certificates(tmp_path):
    """Radii in a file can be forged; an audit does not look at them."""
    run = write_run(tmp_path / "run", [0, 1], [0.9, 0.8])
    (tmp_path / "run" / "certificates.tsv").write_text("idx\tlabel\tpredict\tradius\tcorrect\ttime\n0\t0\t0\t9\t1\t0\n")
    audit.main([run, "--out", str(tmp_path / "audit")])
    assert np.isclose(rows(tmp_path / "audit")["d/0"]["p_lower"], float(lower_bound(900, 1000, 0.001)))
