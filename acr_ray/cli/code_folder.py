"""The code alone, as a folder that Ray can upload: never the results, data and environments that lie beside it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from acr_ray.cli.command_line import PACKAGE, jobs_folder
from acr_ray.settings.errors import UserError

#: The folder that holds the package: a checkout, or where packages are installed.
ROOT = PACKAGE.parent
#: What is taken of the folder where the user stands: own methods and recipes.
ENDINGS = (".py", ".yaml", ".yml", ".json")
LARGEST = 2**20  # bytes of such a file; a recipe or a method has a few thousand
MOST = 90 * 2**20  # bytes in all; Ray refuses more than 100 MiB


@contextmanager
def code_folder(here: Path | None = None, others: Sequence[Path] = ()) -> Iterator[Path]:
    """Make a temporary folder with this project's code, the small files in ``here`` that may belong to it, and more.

    The code is the package, and ``jobs/`` if it lies beside it.

    Args:
        here: the user's folder, of which only small files directly in it with `ENDINGS` are taken; None: none.
        others: files and folders that go along, each under its own name.

    Raises:
        UserError: one of ``others`` is not there, or all is more than Ray takes; names the largest.
    """
    with TemporaryDirectory(prefix="acr-code-") as temporary:
        folder = Path(temporary)
        for source in filter(None, (PACKAGE, jobs_folder())):
            shutil.copytree(source, folder / source.name, ignore=shutil.ignore_patterns("__pycache__"))
        for path in sorted(here.iterdir()) if here is not None else ():
            if path.is_file() and path.suffix in ENDINGS and path.stat().st_size <= LARGEST:
                shutil.copyfile(path, folder / path.name)
        sizes = {str(path): _size(path) for path in others}
        if sum(sizes.values()) > MOST:
            largest = max(sizes, key=sizes.__getitem__)
            raise UserError(
                f"--with {largest}: {sizes[largest] / 2**20:.0f} MB; Ray uploads 100 MB at most. Put it where all nodes"
                " can read it (a shared folder, s3://…) and name it by that path"
            )
        for path in others:
            _copy(path, folder / path.resolve().name)
        yield folder


def _size(path: Path) -> int:
    if not path.exists():
        raise UserError(f"--with {path}: there is no such file or folder")
    return sum(p.stat().st_size for p in path.rglob("*") if p.is_file()) if path.is_dir() else path.stat().st_size


def _copy(path: Path, to: Path) -> None:
    if path.is_dir():
        shutil.copytree(path, to, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copyfile(path, to)
