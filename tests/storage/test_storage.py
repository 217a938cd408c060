"""Folders whose files are whole, and folders that belong to one run."""

import os
import threading

import pytest

from acr_ray.settings import UserError
from acr_ray.storage import Folder, amend, open_run

IDENTITY = {"recipe": "digits", "seed": 0, "milestones": (30, 50)}


def test_a_reader_never_sees_half_a_file(tmp_path):
    folder, done, seen = Folder(tmp_path), threading.Event(), set()
    folder.write_bytes("f", b"a" * 400_000)

    def write():
        for letter in b"bcdefgh" * 5:
            folder.write_bytes("f", bytes([letter]) * 400_000)
        done.set()

    thread = threading.Thread(target=write)
    thread.start()
    while not done.is_set():
        content = folder.read_bytes("f")
        assert len(content) == 400_000 and len(set(content)) == 1
        seen.add(content[:1])
    thread.join()
    assert folder.names() == ["f"] and os.listdir(tmp_path) == ["f"]


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    folder = Folder(tmp_path)
    folder.write_text("f", "old")

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        folder.write_text("f", "new")
    assert folder.read_text("f") == "old" and os.listdir(tmp_path) == ["f"]


def test_a_uri_is_as_good_as_a_path(tmp_path):
    folder = Folder(f"file://{tmp_path}/deep/er").make_writable()
    folder.write_json("a.json", {"x": 1})
    (folder / "sub").write_text("b.txt", "hi")
    assert Folder(tmp_path / "deep" / "er").read_json("a.json") == {"x": 1}
    assert folder.read_text("sub/b.txt") == "hi" and folder.names(".json") == ["a.json"]
    folder.delete("sub")
    folder.delete("sub")
    assert not folder.exists("sub") and (folder / "none").names() == []


def test_places_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    for location in (tmp_path / "file", tmp_path / "file" / "below", "/proc/nothing/here"):
        with pytest.raises(UserError, match=r"^--out .*cannot be written"):
            Folder(location).make_writable()
    with pytest.raises(UserError, match="--out nowhere://x"):
        Folder("nowhere://x")


def test_the_same_run_may_go_on(tmp_path):
    first = open_run(Folder(tmp_path), "train", IDENTITY, owned=("metrics.jsonl",))
    amend(Folder(tmp_path), first, mlflow_run_id="abc")
    (tmp_path / "metrics.jsonl").write_text("x")
    again = open_run(Folder(tmp_path), "train", IDENTITY, owned=("metrics.jsonl",))
    assert again["mlflow_run_id"] == "abc" and again["identity"]["milestones"] == [30, 50]


@pytest.mark.parametrize(
    "job, change, words",
    [
        ("train", {"seed": 1}, ["seed was 0, is 1", "--overwrite"]),
        ("train", {"new": 5}, ["new was None, is 5"]),
        ("certify", {}, ["holds a train run, not certify"]),
    ],
)
def test_another_run_is_refused_and_nothing_is_lost(tmp_path, job, change, words):
    open_run(Folder(tmp_path), "train", IDENTITY, owned=("metrics.jsonl",))
    (tmp_path / "metrics.jsonl").write_text("dear")
    before = (tmp_path / "run.json").read_bytes()
    with pytest.raises(UserError) as caught:
        open_run(Folder(tmp_path), job, IDENTITY | change, owned=("metrics.jsonl",))
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert (tmp_path / "metrics.jsonl").read_text() == "dear" and (tmp_path / "run.json").read_bytes() == before


def test_overwrite_deletes_what_the_job_wrote_and_nothing_else(tmp_path):
    open_run(Folder(tmp_path), "train", IDENTITY, owned=("metrics.jsonl", "checkpoint"))
    (tmp_path / "metrics.jsonl").write_text("old")
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "notes.txt").write_text("mine")
    open_run(Folder(tmp_path), "train", IDENTITY | {"seed": 9}, overwrite=True, owned=("metrics.jsonl", "checkpoint"))
    assert sorted(os.listdir(tmp_path)) == ["notes.txt", "run.json"]


def test_results_of_an_unknown_run_are_refused(tmp_path):
    (tmp_path / "metrics.jsonl").write_text("?")
    with pytest.raises(UserError, match=r"holds metrics\.jsonl of an unknown run"):
        open_run(Folder(tmp_path), "train", IDENTITY, owned=("metrics.jsonl",))
    (tmp_path / "run.json").write_text("{half")
    with pytest.raises(UserError, match=r"run\.json: not valid JSON"):
        open_run(Folder(tmp_path), "train", IDENTITY, owned=("metrics.jsonl",))
    (tmp_path / "run.json").write_text('{"schema_version": 99}')
    with pytest.raises(UserError, match="schema_version 99"):
        open_run(Folder(tmp_path), "train", IDENTITY, owned=("metrics.jsonl",))


def test_proving_that_a_folder_can_be_written_leaves_nothing(tmp_path):
    Folder(tmp_path / "a" / "b").prove_writable()
    Folder(f"file://{tmp_path}/c/d").prove_writable()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "held").mkdir()
    Folder(tmp_path / "held").prove_writable()
    assert list(tmp_path.iterdir()) == [tmp_path / "held"] and list((tmp_path / "held").iterdir()) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        Folder(tmp_path / "file" / "below").prove_writable()
