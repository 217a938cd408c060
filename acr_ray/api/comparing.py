"""`acr_ray.compare`: a report on several certifications."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from acr_ray.api.given import run_options
from acr_ray.cli.commands import report
from acr_ray.cli.results import CertifyResult, ReportResult
from acr_ray.settings import UserError


def compare(
    sources: Mapping[str, Any] | Sequence[Any],
    *,
    out: str | os.PathLike[str] | None = None,
    radii: Sequence[float] | None = None,
    baseline: str | None = None,
    tracking_uri: str | None = None,
    run_name: str | None = None,
    **others: Any,
) -> ReportResult:
    """Compare certificates: tables, figures and one page, in ``out``.

    Args:
        sources: what to compare, by the name it shall have; or a list of it. Each is what `acr_ray.certify` returns,
            or a certify folder, ``certificates.parquet``, TSV or ECDF file, or ``runs:/RUN_ID``.
        out: folder for the report, a path or URI.
        radii: of certified accuracy, >= 0; None: multiples of 0.25 or 0.5.
        baseline: the source that others are compared with; None: the first.
        tracking_uri, run_name: as in `acr_ray.certify`.
        others: arguments of `acr_ray.cli.commands.report.run`, such as ``dataset`` and ``root`` of pictures.

    Raises:
        UserError: a source can't be read, or an argument doesn't fit.
    """
    options = run_options(out, tracking_uri, run_name, False, False)
    allowed = ("sigma", "n", "alpha", "formats", "layout", "dataset", "root", "constant", "best_per_radius")
    if unknown := next((key for key in others if key not in allowed), None):
        raise UserError(f"compare: there is no argument {unknown}; others are {', '.join(allowed)}")
    if isinstance(sources, Mapping):
        named = [_named(str(name), source) for name, source in sources.items()]
    elif isinstance(sources, Sequence) and not isinstance(sources, str):
        named = [_location(source) for source in sources]
    else:
        raise UserError(f"sources: a {type(sources).__name__}; give {{name: result or path}}, or a list")
    return report.run(named, options, radii=radii, baseline=baseline, **others)


def _named(name: str, source: Any) -> str:
    if not name or "=" in name or "/" in name:
        raise UserError(f"sources: the name {name!r}; a name is not empty and holds neither = nor /")
    return f"{name}={_location(source)}"


def _location(source: Any) -> str:
    if isinstance(source, CertifyResult):
        return str(source.folder)
    if isinstance(source, (str, os.PathLike)):
        return os.fspath(source)
    raise UserError(f"sources: a {type(source).__name__}; give what certify returned, or a path")
