"""What a user's own code is made of: the hashes of its file and of what that imports from the user's own files."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import site
import sys
import sysconfig
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
INSTALLED = {"site-packages", "dist-packages"}


def source_hashes(module: str) -> dict[str, str]:
    """SHA-256 of the source of a module and of all that it imports, and these import, but for installed packages.

    Imports are read from the source, also those inside functions; what is imported by a computed name is not seen.

    Args:
        module: an importable name, e.g. ``my_loss``.

    Returns:
        ``{"my_loss.py": "sha256:…"}``: by module, as a path; empty for a module without a source of the user's own.
    """
    found: dict[str, str] = {}
    left = [module]
    seen = set()
    while left:
        name = left.pop()
        if name in seen:
            continue
        seen.add(name)
        spec = _find(name)
        path = _own_file(spec)
        if spec is None or path is None:
            continue
        content = path.read_bytes()
        found[name.replace(".", "/") + path.suffix] = f"sha256:{hashlib.sha256(content).hexdigest()}"
        package = name if spec.submodule_search_locations else name.rpartition(".")[0]
        left += _parents(name)
        left += list(_imports(content, package))
    return dict(sorted(found.items()))


def _find(name: str) -> ModuleSpec | None:
    try:
        return importlib.util.find_spec(name)
    except (ImportError, ValueError, AttributeError):  # absent, or a name from within a module
        return None


def _own_file(spec: ModuleSpec | None) -> Path | None:
    """The source where it is the user's own: not Python's, not an installed package's, not this package's."""
    if spec is None or not spec.has_location or not spec.origin:
        return None
    path = Path(spec.origin).resolve()
    if path.suffix != ".py" or path.is_relative_to(PACKAGE):
        return None
    if INSTALLED & set(path.parts):  # of another environment, which this one also looks into
        return None
    paths = sysconfig.get_paths()
    installed: list[str | Path] = [paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    installed += [*site.getsitepackages(), site.getusersitepackages(), Path(sys.base_prefix, "lib")]
    return None if any(path.is_relative_to(Path(place).resolve()) for place in installed) else path


def _parents(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:i]) for i in range(1, len(parts))]


def _imports(content: bytes, package: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(content)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = package.split(".")
                above = parts[: len(parts) - node.level + 1]
                base = ".".join([*above, base] if base else above)
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names if alias.name != "*")
