"""Cutting work, and the ledger that remembers it."""

import json

import numpy as np
import pytest

from acr_ray.certification.ledger import COMPACT_AT, Ledger
from acr_ray.certification.tasks import Span, TaskCutter, missing, pending
from acr_ray.settings import UserError
from acr_ray.smoothing.plan import phases
from acr_ray.storage import Folder

NAMES = ["a/0", "a/1", "b/0"]
PHASES = phases(30, 250, 100)  # one block of 30; blocks of 100, 100 and 50 of 100


def result(span, phase, seed=0):
    counted = sum(phase.counted(block) for block in range(span.first, span.stop))
    counts = np.random.default_rng([seed, span.image, span.first]).multinomial(counted, [0.2, 0.5, 0.3])
    return span, counts, 0.25


def everything(size):
    by_name = {phase.name: phase for phase in PHASES}
    cutter = TaskCutter(pending(3, PHASES, {}))
    while spans := cutter.take(size):
        yield [result(span, by_name[span.phase]) for span in spans]


def open_ledger(folder):
    return Ledger(folder, NAMES, PHASES, 3)


def slow_missing(blocks, done):
    covered = {b for first, stop in done for b in range(first, stop)}
    return [b for b in range(blocks) if b not in covered]


def test_missing_equals_a_slow_reference():
    rng = np.random.default_rng(0)
    for _ in range(300):
        blocks = int(rng.integers(1, 12))
        cuts = sorted(rng.choice(blocks + 1, size=min(blocks + 1, 5), replace=False).tolist())
        done = [pair for pair in zip(cuts, cuts[1:], strict=False) if rng.random() < 0.5]
        found = [b for first, stop in missing(blocks, done) for b in range(first, stop)]
        assert found == slow_missing(blocks, done)


@pytest.mark.parametrize("size", [1, 50, 130, 350, 10_000])
def test_tasks_cover_every_block_once_and_hold_about_what_was_asked(size):
    cutter, taken = TaskCutter(pending(3, PHASES, {})), []
    while spans := cutter.take(size):
        cost = sum(span.blocks * (30 if span.phase == "select" else 100) for span in spans)
        assert cost <= size + 100
        taken += spans
    blocks = [(span.image, span.phase, b) for span in taken for b in range(span.first, span.stop)]
    assert sorted(blocks) == sorted((i, p.name, b) for i in range(3) for p in PHASES for b in range(p.blocks))


def test_what_is_done_is_not_cut_again():
    done = {(0, "select"): [(0, 1)], (0, "estimate"): [(1, 2)], (2, "estimate"): [(0, 3)]}
    left = [span for span, _ in pending(3, PHASES, done)]
    assert left == [
        Span(0, "estimate", 0, 1), Span(0, "estimate", 2, 3), Span(1, "select", 0, 1), Span(1, "estimate", 0, 3),
        Span(2, "select", 0, 1),
    ]  # fmt: skip


@pytest.mark.parametrize("size", [100, 270])
def test_read_back_equals_what_was_written(tmp_path, size):
    folder = Folder(tmp_path)
    ledger = open_ledger(folder)
    batches = list(everything(size))
    for batch in batches:
        ledger.append(batch)
    for found in (ledger, open_ledger(folder)):
        assert all(found.complete(image) for image in range(3))
        assert found.evaluations == 3 * (30 + 300)
        for image in range(3):
            rows = [r for batch in batches for r in batch if r[0].image == image]
            assert found.seconds(image) == pytest.approx(sum(seconds for *_, seconds in rows))
            for phase in PHASES:
                expected = sum(counts for span, counts, _ in rows if span.phase == phase.name)
                assert found.counts(image, phase.name).tolist() == expected.tolist()
                assert expected.sum() == phase.draws


def test_half_a_ledger_says_what_is_missing(tmp_path):
    ledger = open_ledger(Folder(tmp_path))
    for batch in list(everything(130))[:3]:
        ledger.append(batch)
    again = open_ledger(Folder(tmp_path))
    assert again.complete(0) and not again.complete(2)
    left = [span for span, _ in pending(3, PHASES, again.done)]
    assert left and all(span.image > 0 for span in left)


def test_many_files_become_one_and_a_cut_short_merge_harms_nothing(tmp_path):
    names = [f"i/{i}" for i in range(COMPACT_AT + 5)]
    select = PHASES[0]
    ledger = Ledger(Folder(tmp_path), names, PHASES, 3)
    for image in range(len(names)):
        if image == COMPACT_AT - 1:
            before = {file.name: file.read_bytes() for file in (tmp_path / "ledger").iterdir()}
        ledger.append([result(Span(image, "select", 0, 1), select)])
    assert len(list((tmp_path / "ledger").iterdir())) == 6
    for name, content in list(before.items())[:7]:
        (tmp_path / "ledger" / name).write_bytes(content)
    again = Ledger(Folder(tmp_path), names, PHASES, 3)
    assert again.evaluations == ledger.evaluations == 30 * len(names)


def spoil(text, **changes):
    return json.dumps(json.loads(text.splitlines()[0]) | changes) + "\n"


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t[: len(t) // 2],
        lambda t: "\n" + t,
        lambda t: spoil(t, image="z/9"),
        lambda t: spoil(t, phase="other"),
        lambda t: spoil(t, first=-1),
        lambda t: spoil(t, stop=9),
        lambda t: spoil(t, counts={"0": 31}),
        lambda t: spoil(t, counts={"0": 60, "1": -30}),
        lambda t: spoil(t, counts={"7": 30}),
        lambda t: spoil(t, counts="many"),
        lambda t: t + "x",
        lambda t: "[]\n",
    ],
)
def test_a_spoilt_ledger_is_refused_by_file_and_line(tmp_path, change):
    ledger = open_ledger(Folder(tmp_path))
    ledger.append([result(Span(0, "select", 0, 1), PHASES[0])])
    file = tmp_path / "ledger" / "00000000.jsonl"
    file.write_text(change(file.read_text()))
    with pytest.raises(UserError, match=r"00000000\.jsonl line \d"):
        open_ledger(Folder(tmp_path))


def test_overlapping_lines_are_refused(tmp_path):
    ledger = open_ledger(Folder(tmp_path))
    ledger.append([result(Span(0, "estimate", 0, 2), PHASES[1])])
    ledger.append([result(Span(0, "estimate", 1, 3), PHASES[1])])
    with pytest.raises(UserError, match="another line already has"):
        open_ledger(Folder(tmp_path))
