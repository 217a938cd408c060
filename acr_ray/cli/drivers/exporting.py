"""A model as a folder ready to upload, with a model card that says how robust it is, and how that was found."""

from __future__ import annotations

import math
import re
import shlex
from typing import Any

import numpy as np
import yaml

from acr_ray import __version__
from acr_ray.certification.run_plan import RunPlan
from acr_ray.cli.commands.certify import FLAGS, OPTIONS
from acr_ray.cli.results import ExportResult
from acr_ray.cli.session import RunOptions
from acr_ray.formats.files import CERTIFICATES, MODEL_CARD, MODEL_WEIGHTS, SUMMARY
from acr_ray.models import ModelCard, load_checkpoint, save_checkpoint
from acr_ray.models.checkpoint import card_values
from acr_ray.reporting import open_source
from acr_ray.settings import CertifySettings, UserError
from acr_ray.smoothing.bounds import round_down
from acr_ray.storage import Folder, open_run
from acr_ray.storage.run_record import find_run
from acr_ray.storage.summaries import read_summary

SCHEMA_VERSION = 1
CONFIG, README = "config.json", "README.md"  # as the hub calls them
OWNED = (MODEL_WEIGHTS, MODEL_CARD, CONFIG, README, SUMMARY)
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def export(source: str, options: RunOptions, certificates: str | None, model_name: str | None) -> ExportResult:
    """Write a folder ready to upload; see `acr_ray.cli.commands.export.run`."""
    out = options.folder()
    model, card = load_checkpoint(source, model_name)
    found = _certified(Folder(certificates, option="--certificates"), card) if certificates else None
    identity = {"model_sha256": f"sha256:{card.sha256}", "certificates": certificates}
    find_run(out, "export", identity, overwrite=options.overwrite, owned=OWNED)
    open_run(out, "export", identity, overwrite=options.overwrite, owned=OWNED)
    written = save_checkpoint(out, model, card)
    out.write_json(CONFIG, card_values(written))
    out.write_text(README, model_card_text(written, found))
    summary = {"schema_version": SCHEMA_VERSION, "model_sha256": written.sha256, "exported": source}
    summary |= {"certificates": certificates, "code_version": __version__, **(found or {})}
    out.write_json(SUMMARY, summary)
    print(f"exported: {out}, SHA-256 {written.sha256[:16]}…; {README} is the model card", flush=True)
    return ExportResult(out, summary)


def _certified(folder: Folder, card: ModelCard) -> dict[str, Any]:
    """What a certification says of the model. Raises UserError if it is unfinished, or another model's."""
    if not folder.is_file(SUMMARY):
        raise UserError(f"--certificates {folder}: no {SUMMARY} there; give the folder of a finished certify run")
    summary, plan = read_summary(folder, "certify"), RunPlan.load(folder)
    if summary["model_sha256"] != card.sha256:
        theirs = summary["model_sha256"][:16]
        raise UserError(f"--certificates {folder}: are of another model ({theirs}…, this one is {card.sha256[:16]}…)")
    found = open_source(("model", f"{folder}/{CERTIFICATES}")).distribution
    # Each quantile is the p_A of an image, the lower one where it lies between two.
    values = np.quantile(np.repeat(found.p, found.weight.astype(np.int64)), QUANTILES, method="lower")
    quantiles = {f"{q:g}": float(v) for q, v in zip(QUANTILES, values, strict=True)}
    numbers = {k: summary[k] for k in ("acr", "certified_accuracy", "hard_share", "images", "evaluations")}
    return {**numbers, "p_a_quantiles": quantiles, "command": reproducing(plan.settings, card)}


def reproducing(settings: CertifySettings, card: ModelCard) -> str:
    """Return the command that certifies again with the same counts, for the folder it stands in."""
    defaults = {name: info.default for name, info in CertifySettings.model_fields.items()}
    words = ["python", "-m", "jobs.certify", "."]
    if card.sources:
        words += ["--model", card.architecture]
    for field, option in (pair for group in OPTIONS.values() for pair in group.items()):
        value = getattr(settings, field)
        if field in ("root", "image_list") and value is not None:
            words += [f"--{option}", "PATH"]  # where it was is nobody's business
        elif value is True and field in FLAGS:
            words += [f"--{option}"]
        elif value is not None and (field in ("dataset", "sigma") or value != defaults[field]):
            words += [f"--{option}", ",".join(map(str, value)) if isinstance(value, tuple) else str(value)]
    words += ["--gpus-per-actor", "1"] * (settings.device == "cuda")
    return " ".join(map(shlex.quote, [*words, "--out", "certified"]))


def model_card_text(card: ModelCard, found: dict[str, Any] | None) -> str:
    """Return the model card: YAML for the hub, and Markdown for people."""
    name, data = _plain((card.recipe or {}).get("name") or card.architecture), _plain(card.dataset or "unknown data")
    tags = ["image-classification", "randomized-smoothing", "certified-robustness", "acr-ray"]
    front: dict[str, Any] = {"library_name": "acr-ray", "pipeline_tag": "image-classification", "tags": tags}
    if found:
        metrics = [
            {"type": f"certified_accuracy@{r}", "value": _down(v), "name": f"certified accuracy at radius {r}"}
            for r, v in found["certified_accuracy"].items()
        ]
        task, about = {"type": "image-classification"}, {"type": data, "name": data}
        front["model-index"] = [{"name": name, "results": [{"task": task, "dataset": about, "metrics": metrics}]}]
    sigma = f"{card.sigma:g}" if card.sigma else "unknown"
    lines = ["---", yaml.safe_dump(front, sort_keys=False).rstrip(), "---", "", f"# {name}", ""]
    lines += [f"A {_plain(card.architecture)} for {data} ({card.num_classes} classes, inputs {tuple(card.shape)} in"]
    lines += [f"[0, 1]), trained with Gaussian noise of sigma {sigma}. Its first layer normalises by mean"]
    lines += [
        f"{_listed(card.mean)} and standard deviation {_listed(card.std)}: noise and radii are in input units.",
        "",
    ]
    lines += ["`model.safetensors` holds the weights, `model.json` (the same as `config.json`) says what they are;"]
    lines += [f"SHA-256 of the weights: `{card.sha256}`.", ""]
    if card.sources:
        lines += [f"The network is code: `{_plain(card.architecture)}`, of the files", ""]
        lines += [f"- `{_plain(file)}`, `{_plain(digest)}`" for file, digest in card.sources.items()] + [""]
    lines += _results(found) if found else ["No certificates were exported with it.", ""]
    return "\n".join(lines)


def _results(found: dict[str, Any]) -> list[str]:
    lines = ["## Certified accuracy", "", "| radius | certified accuracy |", "| --- | --- |"]
    lines += [f"| {radius} | {100 * _down(share):.2f} % |" for radius, share in found["certified_accuracy"].items()]
    lines += [
        "",
        f"Over {found['images']} images. Share of hard images (p_A < 0.5): {100 * found['hard_share']:.1f} %;",
    ]
    lines += [f"average certified radius: {round_down(found['acr'], 4)}.", "", "## p_A", ""]
    lines += ["The share of noise draws that the classifier gets right, by quantile over the images:", ""]
    shown = {f"{100 * float(q):g} %": f"{_down(v):.4f}" for q, v in found["p_a_quantiles"].items()}
    lines += [f"| {' | '.join(shown)} |", f"|{' --- |' * len(shown)}", f"| {' | '.join(shown.values())} |", ""]
    return [*lines, "## Reproduce", "", "```console", f"$ {found['command']}", "```", ""]


def _down(value: float) -> float:
    """Four digits, never more than it is."""
    return math.floor(value * 1e4 + 1e-9) / 1e4


def _listed(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:g}" for value in values)


def _plain(text: Any) -> str:
    """A name as text that is no markup, whoever wrote it."""
    return re.sub(r"[^\w .:/@+,-]", "_", str(text))[:200]
