"""What a driver hears of a search's trials, without a cluster."""

import pickle
from types import SimpleNamespace

import pytest

from acr_ray.tuning import placement
from acr_ray.tuning.placement import EVERY, LeakedGroups
from acr_ray.tuning.watcher import Watcher, watching

TRIAL = SimpleNamespace(path="folder", config={"training.m": 2}, last_result={"status": "running", "epoch": 3})


@pytest.fixture
def groups(monkeypatch):
    """Placement groups of this job, and those in which somebody lives; ``freed`` says what was given back."""
    state = SimpleNamespace(mine={"a", "b"}, inhabited={"a"}, freed=[])
    monkeypatch.setattr(placement, "_groups_of_this_job", lambda: state.mine - set(state.freed))
    monkeypatch.setattr(placement, "_inhabited", lambda: state.inhabited)
    monkeypatch.setattr(placement, "_free", lambda groups: state.freed.extend(sorted(groups)) or len(groups))
    return state


def test_each_search_hears_of_its_own_trials(groups):
    heard = []
    watcher = pickle.loads(pickle.dumps(Watcher()))  # as Tune has it in a search that resumes
    with watching(lambda point, report: heard.append((point, report["status"]))) as first:
        watcher.on_trial_result(0, [], TRIAL, {"status": "finished"})
        watcher.on_trial_complete(0, [], TRIAL)
        watcher.on_trial_error(0, [], TRIAL)
    assert heard == [({"training.m": 2}, "finished"), ({"training.m": 2}, "stopped")]
    assert first.lost == {"folder": {"training.m": 2}}
    with watching(lambda point, report: None) as second:
        pass
    assert second.lost == {}, "nothing is left of the search before"
    with pytest.raises(LookupError):
        watcher.on_trial_error(0, [], TRIAL)


def test_groups_are_freed_once_nobody_was_in_them_twice(groups, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(placement.time, "monotonic", lambda: now[0])
    leaked = LeakedGroups()
    assert leaked.free_unused() == 0, "b may be about to be used"
    now[0] += EVERY / 2
    assert leaked.free_unused() == 0 and groups.freed == []
    now[0] += EVERY
    groups.inhabited = set()
    assert leaked.free_unused() == 1 and groups.freed == ["b"], "a has only just been left"


def test_all_groups_are_freed_at_the_end_of_a_search(groups):
    with pytest.raises(KeyboardInterrupt), watching(lambda point, report: None):
        raise KeyboardInterrupt
    assert groups.freed == ["a", "b"]
