import argparse
import json
import sys

import pytest
import torch

from acr_ray.settings import UserError
from jobs.benchmarks import gpu
from jobs.benchmarks.gpu_engine import two_sample
from jobs.benchmarks.gpu_page import shown, write_page
from jobs.benchmarks.gpu_parts import Findings


def options(tmp_path, **more):
    return argparse.Namespace(**({"dry": True, "parts": None, "out": str(tmp_path / "out")} | more))


def test_a_part_runs_dry_and_leaves_both_files(tmp_path):
    found = gpu.run(options(tmp_path, parts="engine"))
    assert not found["failed"] and found["checks"] >= 6
    written = json.loads((tmp_path / "out" / "gpu.json").read_text())
    assert {line["status"] for line in written["lines"]} == {"passed"}
    page = (tmp_path / "out" / "gpu.md").read_text()
    assert "noise: standard normal" in page and "0 failed" in page


def test_a_part_that_hangs_or_breaks_is_ended_and_hides_no_other(tmp_path, monkeypatch, capfd):
    slow = tmp_path / "slow.py"
    slow.write_text("import time, sys; print('at work', flush=True); time.sleep(60)\n")
    real = gpu.subprocess.Popen

    def popen(command, **more):
        if "engine" in command:
            return real([sys.executable, str(slow)])
        if "certify" in command:
            return real([sys.executable, "-c", "raise SystemExit(3)"])
        return real(
            [sys.executable, "-c", f'open({command[5]!r}, \'w\').write(\'{{"status": "passed", "name": "x"}}\')']
        )

    monkeypatch.setattr(gpu.subprocess, "Popen", popen)
    monkeypatch.setattr(gpu, "DRY_LIMIT", 3)
    found = gpu.run(options(tmp_path, parts="engine,certify,train"))
    assert found["failed"] == ["engine: the part as a whole", "certify: the part as a whole"]
    lines = json.loads((tmp_path / "out" / "gpu.json").read_text())["lines"]
    assert [line["status"] for line in lines] == ["failed", "failed", "passed"]
    assert lines[0]["why"] == "not done in 3 s" and lines[1]["why"] == "ended with exit code 3"


def test_mistakes_are_one_line(tmp_path):
    with pytest.raises(UserError, match="--parts speed: unknown; allowed: engine, training"):
        gpu.run(options(tmp_path, parts="speed"))
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match="no usable GPU; --dry"):
            gpu.run(options(tmp_path, dry=False))
    assert not (tmp_path / "out").exists()


def test_a_check_that_breaks_is_a_failed_line_with_what_it_had(tmp_path):
    found = Findings(tmp_path / "x.jsonl", dry=True)
    with found.check("one") as values:
        values["p"] = 0.5
        assert values["p"] > 1
    with found.check("two") as values:
        values["n"] = 3
    one, two = (json.loads(line) for line in (tmp_path / "x.jsonl").read_text().splitlines())
    assert one["status"] == "failed" and one["p"] == 0.5 and "AssertionError" in one["why"]
    assert two == {"status": "passed", "name": "two", "n": 3}


def test_the_page_shows_figures_with_their_spread(tmp_path):
    figure = {"median": 12345.6, "min": 12000.0, "max": 13000.0, "runs": 3}
    assert shown(figure) == "12,346 (12,000 to 13,000, 3 runs)"
    lines = [{"part": "certify", "status": "measured", "name": "a | b", "rate": figure}]
    write_page(tmp_path / "page.md", {"machine": {"device": "none"}, "lines": lines, "failed": []})
    assert "| measured | a / b | rate 12,346 (12,000 to 13,000, 3 runs) |" in (tmp_path / "page.md").read_text()


def test_two_tables_of_counts_are_told_apart_if_and_only_if_they_differ():
    generator = torch.Generator().manual_seed(0)

    def table(p):
        draws = torch.multinomial(torch.tensor(p), 20 * 2000, replacement=True, generator=generator).view(20, 2000)
        return torch.stack([(draws == c).sum(1) for c in range(3)], 1).numpy()

    same, other = [0.7, 0.2, 0.1], [0.67, 0.23, 0.1]
    assert two_sample(table(same), table(same)) > 1e-4
    assert two_sample(table(same), table(other)) < 1e-6
