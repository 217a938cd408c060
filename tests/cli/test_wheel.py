"""What an installation gets: one package and one program, which do without the checkout's jobs/ and cluster/."""

import subprocess
import sys
import zipfile

import pytest

from tests.fakes.jobs import ROOT


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder with what the wheel holds, built from a copy of the sources: a build writes beside them."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in ("acr_ray", "jobs", "cluster", "pyproject.toml", "README.md", "LICENSE"):
        (source / name).symlink_to(ROOT / name)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index", "--quiet"]
    done = subprocess.run([*command, "--wheel-dir", folder, source], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def call(installed, cwd, *words):
    code = f"import sys; sys.argv[0] = 'acr-ray'; sys.path.insert(0, {str(installed)!r}); "
    code += "from acr_ray.cli.app import main; sys.exit(main())"
    return subprocess.run([sys.executable, "-c", code, *words], cwd=cwd, capture_output=True, text=True, env={})


def test_one_package_and_one_program_are_installed(installed):
    names = {path.name for path in installed.iterdir()}
    assert {name for name in names if not name.endswith(".dist-info")} == {"acr_ray"}
    (about,) = installed.glob("*.dist-info")
    assert "acr-ray = acr_ray.cli.app:main" in (about / "entry_points.txt").read_text()
    assert (about / "top_level.txt").read_text().split() == ["acr_ray"]
    data = {path.relative_to(ROOT) for path in (ROOT / "acr_ray").rglob("*") if path.suffix in (".html", ".css", ".js")}
    assert len(data) > 4 and all((installed / path).is_file() for path in data)


def test_the_program_works_without_a_checkout(installed, tmp_path):
    listed = call(installed, tmp_path, "--help")
    assert listed.returncode == 0 and "  certify " in listed.stdout and "  bench " not in listed.stdout, listed.stderr
    shown = call(installed, tmp_path, "train", "--help")
    assert shown.returncode == 0 and shown.stdout.startswith("usage: acr-ray train RECIPE --out DIR")
    wrong = call(installed, tmp_path, "certify", "--out", "x")
    assert wrong.returncode == 2 and "(see acr-ray certify --help)" in wrong.stderr
    unknown = call(installed, tmp_path, "bench", "certify")
    assert unknown.returncode == 2 and "there is no command 'bench'" in unknown.stderr


def test_another_package_named_jobs_is_left_alone(installed, tmp_path):
    """It lies beside ours, as in site-packages; its modules are neither listed nor uploaded with a job."""
    (installed / "jobs").mkdir()
    (installed / "jobs" / "__main__.py").write_text("print('theirs')")
    (installed / "jobs" / "mail.py").write_text('"""Send mail."""')
    assert "mail" not in call(installed, tmp_path, "--help").stdout
    code = f"import sys; sys.path.insert(0, {str(installed)!r}); from acr_ray.cli.code_folder import code_folder\n"
    code += "with code_folder() as folder: print(sorted(path.name for path in folder.iterdir()))"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, env={})
    assert done.stdout.strip() == "['acr_ray']", done.stderr
