"""Certify a classifier.

CHECKPOINT is a folder of train, its checkpoint/, or runs:/RUN_ID; or a file of weights that other code wrote
(.safetensors, .pt, .pth, .pth.tar, .ckpt, .bin), or hf://owner/name: nothing in such a file is run; or module:function
of your own that returns the trained network. Leaves certificates.parquet, certificates.tsv and summary.json in DIR. The
same command again resumes the run.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from acr_ray.certification.planned import CertificationPlan
from acr_ray.cli.command_line import command_line
from acr_ray.cli.options import CLUSTER, add_actor_options, add_model_options, add_run_options, import_choices
from acr_ray.cli.parser import Parser, given
from acr_ray.cli.results import CertifyResult
from acr_ray.cli.session import RunOptions
from acr_ray.settings import CertifySettings
from acr_ray.settings.imports import ImportChoices

#: The option of each settings field, under its title in the help.
OPTIONS = {
    "what to certify": {
        "dataset": "dataset",
        "root": "data.root",
        "class_map": "data.class_map",
        "size": "data.size",
        "resize": "data.resize",
        "crop": "data.crop",
        "split": "split",
        "max_images": "max-images",
        "every": "every",
        "image_list": "image-list",
    },
    "noise and guarantee": {
        "sigma": "sigma",
        "noise": "noise",
        "n0": "n0",
        "n": "n",
        "alpha": "alpha",
        "certificate": "certificate",
        "bound": "bound",
        "radii": "radii",
        "seed": "seed",
    },
    "early stopping": {
        "stopping": "stopping",
        "tolerance": "tolerance",
        "band": "band",
        "band_upto": "band-upto",
        "stop_when_wrong": "stop-when-wrong",
    },
    "arithmetic": {"block": "block", "dtype": "dtype", "calibration": "calibration", "compile": "compile"},
}
#: Settings whose option takes no value.
FLAGS = ("stop_when_wrong", "compile")


def run(
    checkpoint: str,
    options: RunOptions,
    *,
    settings: Mapping[str, Any] | None = None,
    actors: tuple[int, int] | None = None,
    gpus_per_actor: float = 0,
    measure_block: bool = False,
    choices: ImportChoices | None = None,
    checks: bool = True,
    on_ray: bool = True,
) -> CertifyResult:
    """Certify a classifier over sampler actors on Ray, or resume the run that the results folder holds.

    Args:
        checkpoint: a folder of ``train``, its ``checkpoint/``, or ``runs:/RUN_ID``; or a file of weights, or
            ``hf://owner/name``, which ``settings`` name the data set of; or ``module:function`` of the user's that
            returns the trained network.
        options: where results go, and how they are tracked.
        settings: fields of `acr_ray.settings.CertifySettings` that differ from its defaults and from what the
            checkpoint says (sigma, data set), e.g. ``{"n": 10_000, "root": "/data"}``.
        actors: the fewest and the most sampler actors; None: all that fit.
        gpus_per_actor: 0: CPU; a fraction shares a GPU.
        measure_block: choose the block by measurement, if the folder does not hold a run already.
        choices: which network it is, for a file of weights, and for a folder whose network is ``module:function``.
        checks: look at some images and the answers to them first, and warn.
        on_ray: False: draw in this process, without Ray; the same counts.

    Raises:
        UserError: checkpoint, data, cluster or folder do not allow it; nothing was made.
        CommandFailed: samplers or storage were lost; the same call resumes the run.
    """
    # These load torch, which --help and a mistake need not wait for.
    from acr_ray.cli.drivers.certification import certify
    from acr_ray.cli.drivers.samplers import Samplers

    samplers = Samplers(actors, gpus_per_actor, on_ray)
    return certify(
        checkpoint,
        options,
        settings or {},
        samplers,
        choices or ImportChoices(),
        measure_block=measure_block,
        checks=checks,
    )


def plan(
    checkpoint: str,
    options: RunOptions,
    *,
    settings: Mapping[str, Any] | None = None,
    actors: tuple[int, int] | None = None,
    gpus_per_actor: float = 0,
    choices: ImportChoices | None = None,
) -> CertificationPlan:
    """Tell what each stopping rule would cost and answer, from a few pilot draws; nothing is written.

    Args: as `run`; ``options.out`` is not needed.

    Returns:
        The rate measured and a forecast for each rule; it is printed, too.

    Raises:
        UserError: checkpoint or data do not allow it.
    """
    from acr_ray.cli.drivers.certification_plan import plan_certification

    return plan_certification(checkpoint, options, settings or {}, actors, gpus_per_actor, choices or ImportChoices())


def main(argv: list[str]) -> None:
    """Read the command line, and certify."""
    options = parser().parse_args(argv)
    measure_block = getattr(options, "settings:block") == "auto"
    if measure_block:
        setattr(options, "settings:block", None)
    if options.plan:
        plan(
            options.checkpoint,
            RunOptions.of(options),
            settings=given(CertifySettings, options),
            actors=options.actors,
            gpus_per_actor=options.gpus_per_actor,
            choices=import_choices(options),
        )
        return
    run(
        options.checkpoint,
        RunOptions.of(options),
        settings=given(CertifySettings, options),
        actors=options.actors,
        gpus_per_actor=options.gpus_per_actor,
        measure_block=measure_block,
        choices=import_choices(options),
        checks=not options.no_checks,
    )


def parser() -> Parser:
    """Make the command's parser."""
    usage = "%(prog)s CHECKPOINT --out DIR [--n N] [--every K] [--actors K] [OPTIONS]"
    parser = Parser(prog=command_line("certify"), usage=usage, description=__doc__)
    first, *_ = OPTIONS
    parser.add_argument_group(first).add_argument(
        "checkpoint",
        metavar="CHECKPOINT",
        help="train folder, its checkpoint/, runs:/RUN_ID, a file of weights, or module:function",
    )
    add_model_options(parser.add_argument_group("a file of weights"))
    defaults = {name: info.default for name, info in CertifySettings.model_fields.items() if not info.is_required()}
    titles = {field: title for title, fields in OPTIONS.items() for field in fields}
    names = {field: option for fields in OPTIONS.values() for field, option in fields.items()}
    parser.add_settings(CertifySettings, names, defaults, flags=FLAGS, groups=titles.__getitem__)
    group = parser.add_argument_group("before anything runs")
    group.add_argument(
        "--no-checks",
        action="store_true",
        help="do not look at 64 images and the answers to them before the first draw",
    )
    group.add_argument(
        "--plan",
        action="store_true",
        help="only tell, from a few pilot draws, what each stopping rule would cost and answer; writes nothing",
    )
    add_actor_options(parser.add_argument_group(CLUSTER))
    add_run_options(parser)
    return parser
