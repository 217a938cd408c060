"""The options that commands share: results, tracking, cluster."""

from __future__ import annotations

import argparse

from acr_ray.cli.parser import Parser, number, whole
from acr_ray.settings.imports import ImportChoices

RESULTS = "results and tracking"
CLUSTER = "cluster"


def add_out_option(group: argparse._ArgumentGroup) -> None:
    """Add ``--out``."""
    group.add_argument("--out", metavar="DIR", help="where results go: a path, or a URI such as s3://… [required]")


def add_result_options(parser: Parser) -> argparse._ArgumentGroup:
    """Add where results go and how they are tracked, for `RunOptions.of`. Returns the group."""
    group = parser.add_argument_group(RESULTS)
    add_out_option(group)
    add_run_place_options(group)
    group.add_argument("--no-tracking", action="store_true", help="log nothing to MLflow")
    return group


def add_run_place_options(group: argparse._ArgumentGroup) -> None:
    """Add where in MLflow a run goes: ``--tracking-uri``, ``--experiment`` and ``--run-name``."""
    _add_tracking_uri(group)
    group.add_argument(
        "--experiment", metavar="NAME", help="MLflow experiment [default: MLFLOW_EXPERIMENT_NAME, else acr-ray]"
    )
    group.add_argument("--run-name", metavar="TEXT", help="name of the MLflow run [default: made from the settings]")


def add_tracking_options(group: argparse._ArgumentGroup) -> None:
    """Add ``--tracking-uri`` and ``--no-tracking``."""
    _add_tracking_uri(group)
    group.add_argument("--no-tracking", action="store_true", help="log nothing to MLflow")


def _add_tracking_uri(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--tracking-uri", metavar="URI", help="MLflow [default: MLFLOW_TRACKING_URI, else ./mlflow.db]")


def add_run_options(parser: Parser) -> argparse._ArgumentGroup:
    """Add what a command has that runs on Ray and can resume, for `RunOptions.of`. Returns the group."""
    group = add_result_options(parser)
    group.add_argument("--overwrite", action="store_true", help="start anew if DIR holds another run")
    group.add_argument("--verbose", action="store_true", help="show what Ray and its workers log")
    return group


def add_register_option(group: argparse._ArgumentGroup) -> None:
    """Add ``--register``."""
    group.add_argument(
        "--register",
        type=_registered_name,
        metavar="NAME",
        help="make the model a version of NAME in MLflow's registry (models:/NAME/VERSION) [default: none]",
    )


def _registered_name(text: str) -> str:
    if not text.strip() or set("/:@") & set(text) or len(text) > 200:
        raise argparse.ArgumentTypeError(f"{text[:60]!r}: must be a text of 1 to 200 characters without / : @")
    return text


def add_model_options(group: argparse._ArgumentGroup, sigma: bool = False) -> None:
    """Add what a file of weights does not say, for `import_choices`.

    Args:
        sigma: also the noise that it was trained on.
    """
    group.add_argument(
        "--model",
        metavar="NAME",
        help="network of a file of weights: ours, torchvision's, timm:NAME or module:function [default: as the file "
        "says]",
    )
    group.add_argument(
        "--normalization",
        metavar="WHAT",
        help="first layer: none (or inside), cifar10, cifar100, imagenet, or MEAN/STD by channel [default: as the file "
        "says, else the data set's; of module:function: none]",
    )
    group.add_argument("--ema", action="store_true", help="take the averaged weights where the file holds both")
    names = "file with a class a line, in the order of the logits [default: the data set's]"
    group.add_argument("--class-names", metavar="FILE", help=names)
    if sigma:
        group.add_argument(
            "--sigma",
            type=number(1e-9, 100),
            metavar="S",
            help="noise that it was trained on [default: as the file says]",
        )


def import_choices(options: argparse.Namespace) -> ImportChoices:
    """Take the options that `add_model_options` has read."""
    sigma = getattr(options, "sigma", None)
    return ImportChoices(options.model, options.normalization, sigma, options.ema, options.class_names)


def add_actor_options(group: argparse._ArgumentGroup) -> None:
    """Add how many sampler actors draw, and what each gets."""
    group.add_argument(
        "--actors", type=_actors, metavar="K", help="sampler actors [>= 1, or LEAST:MOST; default: all that fit]"
    )
    group.add_argument(
        "--gpus-per-actor", type=number(0), default=0, metavar="G", help="0: CPU; a fraction shares a GPU [default: 0]"
    )


def _actors(text: str) -> tuple[int, int]:
    """``2`` or ``2:8``."""
    low, _, high = text.partition(":")
    least = whole(1, 1_000_000)(low)
    return least, whole(least, 1_000_000)(high) if high else least


def add_worker_options(group: argparse._ArgumentGroup) -> None:
    """Add what one DDP worker gets."""
    group.add_argument(
        "--gpus-per-worker", type=number(0), default=0, metavar="G", help="0: CPU and gloo; else NCCL [default: 0]"
    )
    group.add_argument(
        "--cpus-per-worker", type=whole(1, 1024), default=1, metavar="C", help="cores and torch threads [default: 1]"
    )
