"""Cutting work, adding up what comes back, and the ledger that remembers it."""

import json

import numpy as np
import pytest

from acr_ray.certification import ledger as ledger_module
from acr_ray.certification.count_store import CountStore, Overlap
from acr_ray.certification.ledger import COMPACT_AT, Ledger
from acr_ray.certification.procedure import CertificationProcedure
from acr_ray.certification.work_items import BlockRange, Queue, WorkItem, missing_blocks
from acr_ray.formats.states import Outcome
from acr_ray.settings import CertifySettings, UserError
from acr_ray.smoothing.decide import certify, select_class
from acr_ray.smoothing.plan import SELECT, staged
from acr_ray.storage import Folder

NAMES, LABELS = ["a/0", "a/1", "b/0"], [1, 1, 0]
SETTINGS = CertifySettings(sigma=0.5, dataset="digits", n0=30, n=250, block=100)
PHASES = CertificationProcedure(SETTINGS).phases  # one block of 30; blocks of 100, 100 and 50 of 100


def counts_of(block_range, phase, seed=0):
    counted = sum(phase.counted(block) for block in range(block_range.first, block_range.stop))
    drawn = np.random.default_rng([seed, block_range.image, block_range.first]).multinomial(counted, [0.1, 0.7, 0.2])
    return {int(c): int(drawn[c]) for c in np.flatnonzero(drawn)}


def result(image, phase, first, stop):
    block_range = BlockRange(image, phase.name, first, stop)
    return block_range, counts_of(block_range, phase), 0.25


def new_store(settings=SETTINGS, names=NAMES, labels=LABELS):
    return CountStore(CertificationProcedure(settings), names, labels)


def queue_of(store, draws_per_pass=100):
    return Queue(len(store), store.advance, store.phases, draws_per_pass, SELECT)


def draw_all(store, size):
    """Take tasks and answer them one by one, as one sampler would; yields the lines of each task."""
    queue = queue_of(store)
    while items := queue.take(size):
        lines = [(r, counts_of(r, item.phase), 0.25) for item in items for r in item.block_ranges()]
        for block_range, counts, seconds in lines:
            assert store.add(block_range, counts, seconds)
            if not store.missing(block_range.image):
                queue.resume(block_range.image)
        yield lines


def slow_missing(blocks, done):
    covered = {b for first, stop in done for b in range(first, stop)}
    return [b for b in range(blocks) if b not in covered]


def test_missing_equals_a_slow_reference():
    rng = np.random.default_rng(0)
    for _ in range(300):
        blocks = int(rng.integers(1, 12))
        cuts = sorted(rng.choice(blocks + 1, size=min(blocks + 1, 5), replace=False).tolist())
        done = [pair for pair in zip(cuts, cuts[1:], strict=False) if rng.random() < 0.5]
        found = [b for first, stop in missing_blocks(blocks, done) for b in range(first, stop)]
        assert found == slow_missing(blocks, done)


@pytest.mark.parametrize("size", [1, 50, 130, 350, 10_000])
def test_tasks_cover_every_block_once_and_hold_about_what_was_asked(size):
    store, taken = new_store(), []
    for lines in draw_all(store, size):
        cost = sum(r.blocks * (30 if r.phase == "select" else 100) for r, *_ in lines)
        assert cost <= size + 100
        taken += [block_range for block_range, *_ in lines]
    blocks = [(r.image, r.phase, b) for r in taken for b in range(r.first, r.stop)]
    assert sorted(blocks) == sorted((i, p.name, b) for i in range(3) for p in PHASES for b in range(p.blocks))
    assert len(store.finished) == 3 and store.noise_draws == 3 * (30 + 300)


def test_what_is_left_at_the_end_is_shared_out():
    store = new_store()
    for image in range(3):
        store.add(*result(image, PHASES[0], 0, 1))
    queue = queue_of(store)
    first = queue.take(100_000, tasks=1)
    assert sum(item.noise_draws for item in first) == 900
    queue.put(first)
    assert sum(item.noise_draws for item in queue.take(100_000, tasks=3)) == 300


def test_selection_draws_of_neighbours_share_forward_passes_whatever_is_done_already():
    names = [f"i/{i}" for i in range(8)]
    store = new_store(names=names, labels=[0] * 8)
    assert [item.images for item in queue_of(store).take(1) + queue_of(store).take(10_000)][:2] == [(0, 1, 2)] * 2
    store.add(*result(1, PHASES[0], 0, 1))
    items = queue_of(store).take(10_000)
    assert [p.images for p in items if p.phase.name == "select"] == [(0, 2), (3, 4, 5), (6, 7)]


def test_what_is_done_is_not_cut_again():
    store = new_store()
    for image, phase, first, stop in [(0, 0, 0, 1), (0, 1, 1, 2), (2, 1, 0, 3)]:
        store.add(*result(image, PHASES[phase], first, stop))
    store.advance_all()
    assert store.missing(0) == [BlockRange(0, "estimate", 0, 1), BlockRange(0, "estimate", 2, 3)]
    assert store.missing(1) == [BlockRange(1, "select", 0, 1)] and store.missing(2) == [BlockRange(2, "select", 0, 1)]


@pytest.mark.slow
def test_planning_a_million_images_takes_no_memory_for_them():
    import tracemalloc

    phases = {phase.name: phase for phase in PHASES}
    names = range(1_000_000)
    queue = Queue(len(names), lambda i: [BlockRange(i, "select", 0, 1)], phases, 100, SELECT)
    queue.take(10_000)
    tracemalloc.start()
    while queue.take(10_000):
        pass
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()


@pytest.mark.parametrize("size", [100, 270])
def test_read_back_equals_what_was_written(tmp_path, size):
    folder = Folder(tmp_path)
    store, written = new_store(), Ledger(folder, NAMES, 3)
    everything = []
    for lines in draw_all(store, size):
        written.append(lines)
        everything += lines
    again = new_store()
    Ledger(folder, NAMES, 3).read(again)
    for found in (store, again):
        assert found.noise_draws == 3 * (30 + 300) and len(found.finished) == 3
        for image in range(3):
            rows = [line for line in everything if line[0].image == image]
            dense = np.zeros((2, 3), dtype=int)
            for block_range, counts, _ in rows:
                for label, count in counts.items():
                    dense[int(block_range.phase == "estimate"), label] += count
            expected = certify(dense[0], dense[1], 0.5, 0.001)
            verdict = found.finished[image]
            assert found.seconds(image) == pytest.approx(sum(seconds for *_, seconds in rows))
            assert [verdict.counts.get(c, 0) for c in range(3)] == dense[1].tolist() and verdict.n == 250
            assert verdict.predicted == expected.predicted
            assert verdict.outcome == (Outcome.ABSTAINED if expected.abstained else Outcome.CERTIFIED)
            assert verdict.p_lower == (0.0 if expected.abstained else expected.p_lower)


def test_ties_of_the_selection_are_decided_as_everywhere():
    procedure = CertificationProcedure(SETTINGS)
    for select in ({2: 15, 0: 15}, {1: 10, 2: 20}, {2: 10, 1: 10, 0: 10}):
        dense = [select.get(c, 0) for c in range(3)]
        verdict = procedure.verdict([select, {0: 250}], "a/0", 0)
        assert verdict.predicted == select_class(dense)


def test_an_image_whose_selected_class_is_wrong_ends_where_asked_to():
    settings = SETTINGS.change({"stop_when_wrong": True})
    verdict = CertificationProcedure(settings).verdict([{1: 20, 2: 10}], "a/0", 2)
    assert (verdict.outcome, verdict.n, verdict.counts, verdict.p_lower) == (
        Outcome.STOPPED_WRONG,
        30,
        {1: 20, 2: 10},
        0.0,
    )
    assert CertificationProcedure(settings).verdict([{1: 20, 2: 10}], "a/0", 1) is None
    assert CertificationProcedure(SETTINGS).verdict([{1: 20, 2: 10}], "a/0", 2) is None


@pytest.mark.parametrize("stopping", ["radii", "width"])
def test_a_procedure_of_looks_asks_for_no_more_than_its_rule_wants(stopping):
    settings = SETTINGS.change({"stopping": stopping, "n": 5000, "radii": (0.0, 0.25), "tolerance": 0.05})
    procedure, found, total = CertificationProcedure(settings), [{1: 30}], 0
    assert [sum(p.draws for p in procedure.phases[1:i]) for i in range(2, len(procedure.phases) + 1)] == list(
        procedure.rule.looks
    )
    while (verdict := procedure.verdict(found, "a/0", 1)) is None:
        phase = procedure.phases[len(found)]
        found.append({1: phase.draws - phase.draws // 5, 2: phase.draws // 5})
        total += phase.draws
    path = np.cumsum([c[1] for c in found[1:]]).tolist()
    assert verdict.n == total == procedure.rule.looks[len(path) - 1] < 5000
    judged = [procedure.rule.judge(path[: i + 1], 30, 30) for i in range(len(path))]
    assert [j.stop for j in judged] == [False] * (len(path) - 1) + [True]
    assert verdict.p_lower == judged[-1].p_lower > 0.5 and verdict.reason == judged[-1].reason


def test_stages_cut_the_draws_between_looks_with_little_surplus():
    phases = staged(100, (50, 120, 1000, 1001), 100)
    assert [(p.name, p.draws, p.block) for p in phases] == [
        ("select", 100, 100),
        ("estimate/1", 50, 50),
        ("estimate/2", 70, 70),
        ("estimate/3", 880, 98),
        ("estimate/4", 1, 1),
    ]
    assert sum(p.blocks * p.block - p.draws for p in phases) == 2
    assert [p.name for p in staged(100, (1000,), 100)] == ["select", "estimate"]


def test_half_a_ledger_says_what_is_missing(tmp_path):
    ledger = Ledger(Folder(tmp_path), NAMES, 3)
    for number, lines in enumerate(draw_all(new_store(), 130)):
        if number < 4:
            ledger.append(lines)
    again = new_store()
    Ledger(Folder(tmp_path), NAMES, 3).read(again)
    assert 0 in again.finished and 2 not in again.finished
    assert again.missing(0) == [] and again.missing(2)


@pytest.mark.parametrize("sealed", [10**9, 6000])
def test_many_files_become_one_and_a_cut_short_merge_harms_nothing(tmp_path, monkeypatch, sealed):
    monkeypatch.setattr(ledger_module, "SEALED", sealed)
    names = [f"i/{i}" for i in range(2 * COMPACT_AT)]
    ledger = Ledger(Folder(tmp_path), names, 3)
    for image in range(len(names)):
        if image == COMPACT_AT - 1:
            before = {file.name: file.read_bytes() for file in (tmp_path / "ledger").iterdir()}
        ledger.append([result(image, PHASES[0], 0, 1)])
    files = sorted((tmp_path / "ledger").iterdir())
    assert len(files) < COMPACT_AT
    if sealed == 6000:
        assert max(file.stat().st_size for file in files) < 40_000, "what is large enough is not merged again"
    for name, content in list(before.items())[:7]:
        (tmp_path / "ledger" / name).write_bytes(content)
    again = new_store(names=names, labels=[0] * len(names))
    Ledger(Folder(tmp_path), names, 3).read(again)
    assert again.noise_draws == 30 * len(names)


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
        lambda t: spoil(t, first=None),
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
    Ledger(Folder(tmp_path), NAMES, 3).append([result(0, PHASES[0], 0, 1)])
    file = tmp_path / "ledger" / "00000000.jsonl"
    file.write_text(change(file.read_text()))
    with pytest.raises(UserError, match=r"00000000\.jsonl line \d"):
        Ledger(Folder(tmp_path), NAMES, 3).read(new_store())


def test_overlapping_lines_are_refused(tmp_path):
    ledger = Ledger(Folder(tmp_path), NAMES, 3)
    ledger.append([result(0, PHASES[1], 0, 2)])
    ledger.append([result(0, PHASES[1], 1, 3)])
    with pytest.raises(UserError, match="another line already has"):
        Ledger(Folder(tmp_path), NAMES, 3).read(new_store())


def test_a_store_counts_no_block_twice():
    """Against a slow reference: any order of any block ranges, duplicates and partial overlaps included."""
    rng = np.random.default_rng(3)
    for _ in range(200):
        store, covered = new_store(), set()
        for _ in range(6):
            first, stop = sorted(rng.choice(4, size=2, replace=False).tolist())
            wanted = set(range(first, stop))
            if wanted & covered and not wanted <= covered:
                with pytest.raises(Overlap):
                    store.add(*result(0, PHASES[1], first, stop))
            else:
                assert store.add(*result(0, PHASES[1], first, stop)) == (not wanted <= covered)
                covered |= wanted
        assert store.noise_draws == 100 * len(covered)


def test_asking_what_an_image_lacks_changes_nothing():
    store = new_store()
    store.add(*result(0, PHASES[0], 0, 1))
    store.add(*result(0, PHASES[1], 0, 3))
    assert store.missing(0) == [] and store.missing(0) == [], "the selection is whole"
    assert not store.finished, "a question finds no verdict"
    assert store.advance(0) == [] and list(store.finished) == [0]
    assert store.advance(1) == store.missing(1) == [BlockRange(1, "select", 0, 1)]


def test_a_work_item_knows_its_cost():
    item = WorkItem((0, 2), PHASES[1], 1, 3)
    assert item.noise_draws == 400
    assert item.block_ranges() == [BlockRange(0, "estimate", 1, 3), BlockRange(2, "estimate", 1, 3)]
