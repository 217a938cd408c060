"""docs/python.md as a newcomer reads it: its blocks run one after another, in one program, in an empty folder."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fakes.jobs import environment

PAGE = Path(__file__).parents[2] / "docs" / "python.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
TRAINS = [block for block in BLOCKS if "acr_ray.train(" in block]


def program(blocks, folder, head=None):
    file, *rest = (block for block in BLOCKS if block.startswith("# mine.py") or block in blocks)
    assert file.startswith("# mine.py")
    (folder / "mine.py").write_text(file)
    (folder / "program.py").write_text("\n".join(rest))
    done = subprocess.run(
        [sys.executable, "program.py"], cwd=folder, env=environment(head), capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_every_block_but_training_runs(tmp_path):
    assert len(BLOCKS) == 8 and len(TRAINS) == 1
    told = program([block for block in BLOCKS if block not in TRAINS], tmp_path)
    assert "right on 100 % clean" in told and told.count("checked 30 images") == 3
    assert (tmp_path / "certified.png").is_file() and (tmp_path / "runs/report/report.html").is_file()


@pytest.mark.ray
def test_the_block_that_trains_runs_on_ray(head, tmp_path):
    first = next(block for block in BLOCKS if block.startswith("import acr_ray"))
    assert "trained: " in program([first, *TRAINS], tmp_path, head)
