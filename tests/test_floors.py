"""The order of the floors, read from the code: a room imports only from floors below it."""

import ast
import subprocess
import sys
from fnmatch import fnmatch
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
GROUND = {"settings", "formats"}
BELOW = {
    "settings": set(),
    "formats": set(),
    "storage": {*GROUND},
    "telemetry": GROUND,
    "smoothing": GROUND,
    "models": {*GROUND, "storage"},
    "data": {*GROUND, "storage"},
    "training": {*GROUND, "storage", "telemetry", "smoothing", "models", "data"},
    "certification": {*GROUND, "storage", "telemetry", "smoothing", "models", "data"},
    "reporting": {*GROUND, "storage", "smoothing", "certification"},
    "tracking": {*GROUND, "storage", "smoothing", "models"},
    "serving": {*GROUND, "storage", "smoothing", "models", "data", "certification", "tracking"},
    "preflight": {*GROUND, "storage", "data"},
    "tuning": {*GROUND, "storage", "smoothing", "models", "data", "training"},
}
RAY = {
    "tuning/search.py",
    "tuning/suggesting.py",
    "tuning/trial.py",
    "tuning/placement.py",
    "tuning/watcher.py",
    "training/worker.py",
    "training/run.py",
    "training/backend.py",
    "training/workers.py",
    "certification/sampler_pool.py",
    "preflight/nodes.py",
    "serving/deployment.py",
    "serving/meters.py",
    "telemetry/meters.py",
    "preflight/reach.py",
    "cli/ray_job.py",
    "cli/ray_session.py",
    "cli/drivers/one_actor.py",
    "cli/drivers/serving.py",
    "cli/drivers/training.py",
}
PURE = {
    *(f"smoothing/{file}.py" for file in ("bounds", "decide", "plan", "stopping", "spending", "futility", "width")),
    *(f"smoothing/{file}.py" for file in ("lattice_law", "lattice_reference", "run_noise")),
    *(f"certification/{file}.py" for file in ("statement", "pool", "rate_estimator", "ledger_writer", "count_store")),
    "training/population.py",
    "training/control/messages.py",
    "training/control/channel.py",
    "preflight/findings.py",
}
# The commands, and what runs them, stand above all rooms of the product.
BELOW["cli"] = set(BELOW)
BELOW["__main__.py"] = {"cli"}
# What Python programs call stands on the commands' bodies.
BELOW["api"] = set(BELOW) - {"__main__.py"}
FILES = sorted((ROOT / "acr_ray").rglob("*.py"))


@cache
def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return found


def name(path: Path) -> str:
    return str(path.relative_to(ROOT / "acr_ray"))


@pytest.mark.parametrize("path", FILES, ids=name)
def test_rooms_import_from_below_only(path):
    room = name(path).split("/")[0]
    rooms = {module.split(".")[1] for module in imports(path) if module.startswith("acr_ray.")} & set(BELOW)
    assert room == "__init__.py" or rooms <= BELOW[room] | {room}
    packages = {module.split(".")[0] for module in imports(path)}
    assert not packages & {"jobs", "cluster", "tests"}
    assert "ray" not in packages or name(path) in RAY
    assert "mlflow" not in packages or room == "tracking"
    assert "torch" not in packages or (
        room in BELOW and name(path) not in PURE and room not in ("settings", "formats", "reporting")
    )


def test_nothing_is_imported_for_type_checking_only():
    for path in [*FILES, *(ROOT / "jobs").glob("*.py")]:
        assert "TYPE_CHECKING" not in path.read_text(), path


def test_imports_run_in_no_circle():
    """Between files, also inside a room; imports within functions count, for they only hide a circle."""
    modules = {f"acr_ray.{name(path)[:-3].replace('/', '.')}".removesuffix(".__init__"): path for path in FILES}
    below = {}
    for module, path in modules.items():
        found = imports(path) & set(modules)
        # "from package import file" means the file.
        below[module] = {one for one in found if not any(other.rpartition(".")[0] == one for other in found)}
    done: set[str] = set()

    def walk(module: str, above: tuple[str, ...]) -> None:
        assert module not in above, " -> ".join([*above[above.index(module) :], module])
        if module not in done:
            for other in sorted(below[module] - {module}):
                walk(other, (*above, module))
            done.add(module)

    for module in modules:
        walk(module, ())


@pytest.mark.parametrize(
    "module", ["smoothing.classifier", "data", "models", "serving.http", "training.loop", "reporting", "settings"]
)
def test_what_computes_does_without_ray_and_mlflow(module):
    """A GPU machine with plain PyTorch can run and time them."""
    code = f"import sys, acr_ray.{module}; print({{'ray', 'mlflow'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize(
    "module", ["smoothing.decide", "smoothing.stopping", "certification.statement", "reporting", "settings"]
)
def test_pure_mathematics_does_without_torch(module):
    code = f"import sys, acr_ray.{module}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "False"


def test_files_are_short():
    long = {name(path): count for path in FILES if (count := len(path.read_text().splitlines())) > 300}
    assert not long


def test_jobs_are_shims_of_the_commands():
    """The commands live in the package; ``bench``, which measures this project alone, has its body in jobs/."""
    shims = {path.stem: path.read_text() for path in (ROOT / "jobs").glob("[!_]*.py") if path.stem != "bench"}
    modules = {path.stem.rstrip("_"): path.stem for path in (ROOT / "acr_ray/cli/commands").glob("[!_]*.py")}
    assert set(shims) == set(modules)
    for job, text in shims.items():  # import_ is the module of import, which is a word of Python
        line = f"from acr_ray.cli.commands.{modules[job]} import main\n"
        assert len(text.splitlines()) <= 12 and line in text, job


def test_no_file_of_the_package_has_a_name_that_git_and_ray_leave_out():
    """A folder ``runs/`` in the package, say, would be in no commit, and in no job's working directory."""
    lines = [*(ROOT / ".gitignore").read_text().splitlines(), *(ROOT / ".rayignore").read_text().splitlines()]
    for path in [*FILES, *(ROOT / "jobs").rglob("*.py")]:
        for part in path.relative_to(ROOT).parts:
            assert not any(fnmatch(part, line.rstrip("/")) for line in lines), path


def test_no_command_imports_the_private_parts_of_another():
    for path in (path for path in FILES if name(path).startswith("cli/")):
        private = [
            module for module in imports(path) if module.startswith("acr_ray.") and "._" in module.replace("__", "")
        ]
        assert not private, (name(path), private)


def test_nothing_unpickles():
    """No pickle of a path that a user gave; torch.load in one place, and there without code."""
    for path in [*FILES, *(ROOT / "jobs").glob("*.py")]:
        text = path.read_text()
        assert "pickle.load" not in text, path.name
        calls = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)]
        loads = [call for call in calls if ast.unparse(call.func) == "torch.load"]
        assert not loads or name(path) == "models/foreign.py", path.name
        assert all("weights_only=True" in ast.unparse(call) for call in loads), path.name
