"""A job from its submission to its end, on a cluster that the user's environment does not name."""

import pytest

from acr_ray.cli.ray_job import JobLost, run_job

JOB = """
import os
print("working in", sorted(os.listdir(".")), flush=True)
raise SystemExit(int(open("code.txt").read()))
"""


@pytest.mark.ray
def test_output_and_outcome_of_a_job(head, tmp_path, monkeypatch, capfd):
    (tmp_path / "job.py").write_text(JOB)
    # Somebody else's cluster, as a user may have it set.
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://127.0.0.1:9")
    for code in (0, 3):
        (tmp_path / "code.txt").write_text(str(code))
        assert run_job(head.dashboard, head.token, "python job.py", tmp_path) is (code == 0)
        printed, errors = capfd.readouterr()
        assert printed == "working in ['code.txt', 'job.py']\n" and "INFO" not in errors, "and nothing of Ray's own"
    with pytest.raises(JobLost, match="lost"):
        run_job(head.dashboard, "wrong", "python job.py", tmp_path)
    with pytest.raises(JobLost):
        run_job("http://127.0.0.1:9", head.token, "python job.py", tmp_path)


@pytest.mark.ray
def test_what_runs_on_a_private_head_submits_to_it(head):
    assert head.environment["RAY_API_SERVER_ADDRESS"] == head.dashboard
