"""From what a user types to a source."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from acr_ray.certification.certificates import certificate_table
from acr_ray.certification.run_plan import RunPlan, holds_run
from acr_ray.formats.files import CERTIFICATES, CERTIFICATES_TSV, LEDGER, PLAN, SUMMARY
from acr_ray.formats.tables import parquet_bytes
from acr_ray.reporting.read_ecdf import read_ecdf
from acr_ray.reporting.read_parquet import has_second_counts, read_certificates
from acr_ray.reporting.read_tsv import read_tsv
from acr_ray.reporting.run_facts import MOST_DRAWS, MOST_SIGMA, check_run_facts
from acr_ray.reporting.sigma_names import is_formality
from acr_ray.reporting.source import Source
from acr_ray.settings.errors import UserError
from acr_ray.smoothing.rules import PLAIN
from acr_ray.storage import Folder

MOST_BYTES = 2**30  # of a file with certificates
#: What a folder of results is searched for, in this order.
CERTIFICATE_FILES = (CERTIFICATES, CERTIFICATES_TSV)


@dataclass(frozen=True)
class Assumptions:
    """sigma, n and alpha of sources that do not say them; by source name, ``""`` for all others."""

    sigma: Mapping[str, float] = field(default_factory=dict)
    n: Mapping[str, int] = field(default_factory=dict)
    alpha: Mapping[str, float] = field(default_factory=dict)

    def of(self, name: str) -> dict[str, Any]:
        """Return the keyword arguments of the readers for the source called ``name``."""
        assumed = {o: getattr(self, o).get(name, getattr(self, o).get("")) for o in ("sigma", "n", "alpha")}
        rules = {
            "sigma": (lambda v: 0 < v <= MOST_SIGMA, f"above 0, at most {MOST_SIGMA}"),
            "n": (lambda v: 1 <= v <= MOST_DRAWS, f"from 1 to {MOST_DRAWS:,}"),
            "alpha": (lambda v: 0 < v < 1, "between 0 and 1"),
        }
        for option, value in assumed.items():
            fits, allowed = rules[option]
            if value is not None and not fits(value):
                raise UserError(f"--{option} {value}: out of range for {name}; allowed: {allowed}")
        return assumed


def open_sources(
    sources: Sequence[str | tuple[str, str]],
    assumptions: Assumptions | None = None,
    resolve_run: Callable[[str], str] | None = None,
) -> list[Source]:
    """Open all sources under names that differ: a second ``gaussian`` says its sigma, or becomes ``gaussian (2)``.

    Args:
        sources: each ``(name, location)``, or text as in `split_name`.
        assumptions: what files of the field do not say.
        resolve_run: makes a local folder of ``runs:/RUN_ID``; without it such sources are refused.

    Raises:
        UserError: there is no source, or one cannot be found or read.
    """
    if not sources:
        raise UserError("no SOURCE given: name at least one certify folder, certificates.parquet, TSV or ECDF file")
    opened: list[Source] = []
    for text in sources:
        source = open_source(text, assumptions, resolve_run)
        opened.append(_set_apart(source, opened))
    return opened


def _set_apart(source: Source, others: Sequence[Source]) -> Source:
    taken = {s.name for s in others}
    same_method = [s for s in others if s.method == source.method]
    if source.name in taken and all(s.sigma != source.sigma for s in same_method):
        source = source.renamed(f"{source.method} (sigma {source.sigma:g})")
    k = 2
    while source.name in taken:
        source, k = source.renamed(f"{source.method} ({k})"), k + 1
    return source


def open_source(
    source: str | tuple[str, str],
    assumptions: Assumptions | None = None,
    resolve_run: Callable[[str], str] | None = None,
) -> Source:
    """Open one source: a certify folder, ``certificates.parquet``, a TSV of the field or an ECDF file.

    Of a certify folder whose run has not ended the ledger is read: its images are there, and it counts as incomplete.

    What a file is, is told by its first bytes, not by its ending.
    """
    name, location = split_name(source) if isinstance(source, str) else source
    name = name or default_name(location)
    if location.startswith("runs:/"):
        if resolve_run is None:
            raise UserError(f"{location}: MLflow runs cannot be opened here")
        location = resolve_run(location)
    data, where, summary = _read(location)
    assumed = (assumptions or Assumptions()).of(name)
    if data[:4] == b"PAR1":
        return read_certificates(data, where, name, summary)
    first = data.removeprefix(b"\xef\xbb\xbf").split(b"\n", 1)[0].decode(errors="replace").strip()
    if "idx" in first.split("\t") or "radius" in first.split("\t"):
        facts = summary or {}
        if facts.get("bound", PLAIN) != PLAIN:
            raise UserError(
                f"{where}: its radii come from the bound {facts['bound']}, from which p_A cannot be read back;"
                f" give the {CERTIFICATE_FILES[0]} beside it"
            )
        return read_tsv(data, where, name, **{o: v if v is not None else facts.get(o) for o, v in assumed.items()})
    if re.fullmatch(r"x[\t,]y", first):
        return read_ecdf(data, where, name, **assumed)
    shown = repr(first[:40]) if data else "nothing, it is empty"
    raise UserError(f"{where} line 1: neither certificates.parquet nor a TSV or ECDF header, but {shown}")


def split_name(text: str) -> tuple[str, str]:
    """``NAME=SOURCE`` apart; the name is empty if none is given. A name holds no slash."""
    name, equals, location = text.partition("=")
    return (name, location) if equals and name and "/" not in name else ("", text)


def default_name(location: str) -> str:
    """Return what to call a source: its folder if the file's own name is a formality, else the file."""
    path = PurePosixPath(location.rstrip("/"))
    chosen = path.name
    for part in (path, *path.parents):
        if part.name and part.name not in CERTIFICATE_FILES and not is_formality(part.name):
            chosen = part.name
            break
    return re.sub(r"\.(tsv|csv|parquet|txt)$", "", chosen) or location


def _read(location: str) -> tuple[bytes, str, dict | None]:
    """The bytes of the file meant by ``location``, its path, and the summary of the run that left it, if one did."""
    head, slash, tail = location.rstrip("/").rpartition("/")
    beside = Folder(head or ("/" if slash else "."), option="SOURCE")
    try:
        if tail not in ("", ".", "..") and beside.is_file(tail):
            return (
                beside.read_bytes(tail, MOST_BYTES),
                location,
                _run_summary(beside) if tail in CERTIFICATE_FILES else None,
            )
        folder = Folder(location, option="SOURCE")
        if not folder.exists():
            raise UserError(f"{location}: there is no such file or folder")
        for name in CERTIFICATE_FILES:
            if folder.is_file(name):
                content, summary = folder.read_bytes(name, MOST_BYTES), _run_summary(folder)
                if name == CERTIFICATES and holds_run(folder) and not has_second_counts(content):
                    # Written before certificates kept the runner-up's count, which the ledger has; they do without.
                    with suppress(UserError):
                        content = _from_ledger(folder, location)
                return content, f"{location.rstrip('/')}/{name}", summary
        if holds_run(folder):
            return _from_ledger(folder, location), f"{location.rstrip('/')}/{LEDGER}", None
        held = ", ".join(folder.names()[:6]) or "nothing"
    except OSError as error:
        raise UserError(f"{location}: cannot be read ({error})") from error
    raise UserError(f"{location}: holds no {' or '.join(CERTIFICATE_FILES)}, but {held}")


def _from_ledger(folder: Folder, location: str) -> bytes:
    """Return what a run's ledger holds so far, as the certificates file that it would leave now."""
    plan = RunPlan.load(folder)
    _, store = plan.open(folder)
    if not store.finished:
        raise UserError(f"{location}: this run is not finished, and none of its {len(store)} images is either")
    return parquet_bytes(certificate_table(plan, store))


def _run_summary(folder: Folder) -> dict | None:
    """Return a run's summary; with the class names of its plan, which certificates of before 0.3 do not hold."""
    if not folder.is_file(SUMMARY):
        return None
    facts = check_run_facts(folder.read_json(SUMMARY), f"{folder}/{SUMMARY}")
    if "class_names" in facts or not folder.is_file(PLAN):
        return facts
    plan = folder.read_json(PLAN)
    named = {"class_names": plan.get("class_names") if isinstance(plan, dict) else None}
    return facts | check_run_facts(named, f"{folder}/{PLAN}")
