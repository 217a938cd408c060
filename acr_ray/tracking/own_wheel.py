"""This package as a wheel, for models that are loaded where it is not installed and no index has it."""

from __future__ import annotations

import base64
import hashlib
import zipfile
from importlib import metadata
from pathlib import Path

import acr_ray
from acr_ray import __version__

NAME = f"acr_ray-{__version__}-py3-none-any.whl"
PACKAGE = Path(acr_ray.__file__).parent
#: What loading a model and asking it for certificates imports, beside this package.
NEEDED = (
    "mlflow",
    "numpy",
    "pandas",
    "pillow",
    "psutil",
    "pyarrow",
    "pydantic",
    "pyyaml",
    "safetensors",
    "scipy",
    "torch",
)
EARLIEST = (1980, 1, 1, 0, 0, 0)  # that a zip archive can say; the same bytes whenever it is made


def write_wheel(folder: Path) -> Path:
    """Write the wheel of the package as it is here, without what it needs. Returns where it lies."""
    files = {
        str(path.relative_to(PACKAGE.parent)): path.read_bytes()
        for path in sorted(PACKAGE.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".pyc"
    }
    about = f"acr_ray-{__version__}.dist-info"
    files[f"{about}/METADATA"] = f"Metadata-Version: 2.1\nName: acr-ray\nVersion: {__version__}\n".encode()
    files[f"{about}/WHEEL"] = b"Wheel-Version: 1.0\nGenerator: acr-ray\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    lines = [f"{name},sha256={_digest(content)},{len(content)}" for name, content in files.items()]
    files[f"{about}/RECORD"] = "\n".join([*lines, f"{about}/RECORD,,\n"]).encode()
    path = folder / NAME
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name, EARLIEST), content, zipfile.ZIP_DEFLATED)
    return path


def pinned() -> list[str]:
    """Return the versions of `NEEDED` that are installed here, as pip reads them."""
    # Of 2.11.0+cu130 the part behind + names a build that most indexes do not have.
    return [f"{name}=={metadata.version(name).partition('+')[0]}" for name in NEEDED]


def _digest(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
