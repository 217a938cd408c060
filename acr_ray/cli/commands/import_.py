"""Import weights that other code wrote.

CHECKPOINT is a .safetensors file, or a .pt, .pth, .pth.tar, .ckpt or .bin file of torch.save, or hf://owner/name; it is
read as tensors and plain values, and nothing in it is run. Leaves checkpoint/ (model.safetensors, model.json) and
summary.json in DIR, which certify takes. A file of the field's code (arch, state_dict, epoch) needs no --model. With
--register the model is logged to MLflow, too, as a version of a registered model.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from acr_ray.cli.command_line import command_line
from acr_ray.cli.options import (
    RESULTS,
    add_model_options,
    add_out_option,
    add_register_option,
    add_run_place_options,
    import_choices,
)
from acr_ray.cli.parser import Parser, given
from acr_ray.cli.results import ImportResult
from acr_ray.cli.session import RunOptions
from acr_ray.settings import CertifySettings
from acr_ray.settings.errors import UserError
from acr_ray.settings.imports import ImportChoices

#: The option of each of certify's settings that says which images the model is for.
OPTIONS = {
    "dataset": "dataset",
    "root": "data.root",
    "class_map": "data.class_map",
    "size": "data.size",
    "resize": "data.resize",
    "crop": "data.crop",
    "split": "split",
}


def run(
    checkpoint: str,
    options: RunOptions,
    *,
    settings: Mapping[str, Any],
    choices: ImportChoices | None = None,
) -> ImportResult:
    """Write weights that other code wrote as a model folder of ours.

    Args:
        checkpoint: a file, or ``hf://owner/name[/file]``.
        options: where results go; to MLflow nothing is logged but a model to be registered.
        settings: the images that the model is for, as ``certify`` takes them: ``dataset`` (needed), ``root``, ``size``
            and the like. They give shape and classes; digits and cifar10 need no root here.
        choices: which network it is, and what the file does not say.

    Raises:
        UserError: the file is refused, or is not this network's for these images; or the folder can't be written.
    """
    if not settings.get("dataset"):
        raise UserError("--dataset: missing; the images that the model is for give their shape and classes")
    from acr_ray.cli.drivers.importing import import_model  # loads torch, which --help and a mistake need not wait for

    return import_model(checkpoint, options, settings, choices or ImportChoices())


def main(argv: list[str]) -> None:
    """Read the command line, and import."""
    options = parser().parse_args(argv)
    run(
        options.checkpoint,
        RunOptions(
            out=options.out,
            tracking_uri=options.tracking_uri,
            experiment=options.experiment,
            run_name=options.run_name,
            overwrite=options.overwrite,
            register=options.register,
        ),
        settings=given(CertifySettings, options),
        choices=import_choices(options),
    )


def parser() -> Parser:
    """Make the command's parser."""
    usage = "%(prog)s CHECKPOINT --dataset NAME --out DIR [--model NAME] [OPTIONS]"
    parser = Parser(prog=command_line("import"), usage=usage, description=__doc__)
    group = parser.add_argument_group("what to import")
    group.add_argument("checkpoint", metavar="CHECKPOINT", help="a file of weights, or hf://owner/name[/file]")
    add_model_options(group, sigma=True)
    images = "the images it is for"
    defaults = {name: info.default for name, info in CertifySettings.model_fields.items() if not info.is_required()}
    parser.add_settings(CertifySettings, OPTIONS, defaults, groups=lambda _: images)
    group = parser.add_argument_group(RESULTS)
    add_out_option(group)
    add_register_option(group)
    add_run_place_options(group)
    group.add_argument("--overwrite", action="store_true", help="start anew if DIR holds another import")
    return parser
