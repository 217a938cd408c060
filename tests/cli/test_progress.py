"""What jobs print while they work."""

import threading
import time

from acr_ray.cli.progress import CertifyLines, EpochLines, Waiting, count
from acr_ray.settings import load_recipe
from acr_ray.telemetry.progress import CertificationProgress


def record(epoch, **more):
    return {"epoch": epoch, "loss": 0.5, "accuracy": 0.77, "remaining": 1297, "inputs": 1297, **more}


def test_what_begins_at_e_t_is_said(capsys):
    lines = EpochLines(load_recipe("digits"))
    lines(record(19))
    lines(record(20, accuracy=0.4, remaining=1210, attack_active=[0.85, 0.72, 0.55], discard_hard_share=0.1))
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 3 and "attack" not in printed[0]
    assert printed[1].startswith("from epoch 21 on (E_t = 20): samples with p_A < 0.5 are left out; samples are drawn")
    assert "the noise is attacked" in printed[1]
    assert "accuracy 40.0 % on attacked noise" in printed[2] and "1,210 of 1,297 samples kept" in printed[2]
    assert "correct before each attack step: 85 72 55 %" in printed[2]


def test_nothing_begins_in_plain_gaussian_training(capsys):
    EpochLines(load_recipe("digits-gaussian"))(record(20))
    assert capsys.readouterr().out.count("\n") == 1


def test_one_actor_is_not_several(capsys):
    assert [count(n, "worker") for n in (1, 2, "1", "2:8")] == ["1 worker", "2 workers", "1 worker", "2:8 workers"]
    progress = CertificationProgress(3, 3, noise_draws=300, noise_draws_planned=300, rate=0.0, actors=1)
    CertifyLines()(progress)
    assert capsys.readouterr().out == "3/3 images  1 actor  300 of 300 noise draws\n"


def test_a_wait_is_said_at_once_and_again_until_it_is_over(capsys):
    with Waiting(seconds=0.05) as waiting:
        waiting.begin("starting Ray")
        time.sleep(0.4)
        waiting.end()
        time.sleep(0.1)
        first = capsys.readouterr().out.splitlines()
        time.sleep(0.3)
        assert capsys.readouterr().out == ""
        waiting.begin("later", at_once=False)
        assert capsys.readouterr().out == ""
    assert first[0] == "starting Ray …" and 2 <= len(first) <= 4
    assert all(line.startswith("starting Ray … 0:0") for line in first[1:])
    assert not [thread for thread in threading.enumerate() if thread is waiting._thread]
