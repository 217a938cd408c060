"""Audit certifications from their ledgers alone.

RUN is a folder of certify. Radii are derived anew (for another --alpha, --bound or --certificate: of runs with a fixed
n); several RUNs of one classifier are merged (other images, or more noise draws of the same). --redraw K draws K lines
of the ledger again with --checkpoint and compares counts. Leaves certificates.parquet, certificates.tsv and
summary.json in DIR. --bundle FILE writes a RUN as one file that others can check with --verify FILE, offline.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from acr_ray.cli.command_line import command_line
from acr_ray.cli.exits import CommandFailed
from acr_ray.cli.options import RESULTS, add_model_options, add_out_option, import_choices
from acr_ray.cli.parser import Parser, dataset_name, number, whole
from acr_ray.cli.results import AuditResult
from acr_ray.cli.session import RunOptions
from acr_ray.settings.errors import UserError
from acr_ray.settings.imports import ImportChoices


def run(
    runs: Sequence[str],
    options: RunOptions,
    *,
    alpha: float | None = None,
    bound: str | None = None,
    certificate: str | None = None,
    rho: float = 0.001,
    redraw: int | None = None,
    redraw_seed: int = 0,
    checkpoint: str | None = None,
    root: str | None = None,
    class_map: str | None = None,
    dataset: str | None = None,
    choices: ImportChoices | None = None,
) -> AuditResult:
    """Derive certificates anew from the ledgers of runs, and print what they say together.

    Args:
        runs: folders of ``certify``, of one classifier.
        options: where results go; nothing is logged to MLflow.
        alpha: another error probability, in (0, 1); None: that of the runs.
        bound: another bound, ``clopper-pearson`` or ``randomized``; None: that of the runs.
        certificate: another kind, ``one-class`` or ``two-class``; None: that of the runs.
        rho: error probability of the statement on all images, in (0, 1).
        redraw: lines of each ledger that are drawn again; >= 1, needs ``checkpoint``.
        redraw_seed: of the choice of these lines.
        checkpoint, root, class_map: the model, the folder of its images (digits need none) and the names of class
            folders, for ``redraw``.
        dataset: the user's own ``module:function`` that gives the images, if the runs name it, for ``redraw``.
        choices: which network it is, if ``checkpoint`` is a file of weights or a model of your own code.

    Returns:
        The result; ``differing`` lines are no error here, but the command's exit code is 1 if there are any.

    Raises:
        UserError: the runs are unfinished, do not belong together, or are not of this model and these images.
    """
    _check_redraw(redraw, checkpoint)
    from acr_ray.cli.drivers.audit import (
        audit,
        redrawing_of,
    )  # loads scipy, which --help and a mistake need not wait for

    redrawing = redrawing_of(redraw, redraw_seed, checkpoint, root, class_map, dataset, choices)
    return audit(runs, options, {"alpha": alpha, "bound": bound, "certificate": certificate}, rho, redrawing)


def bundle(run_folder: str, file: str, *, sign: str | None = None) -> None:
    """Write a finished certification as one file that others can check.

    Args:
        run_folder: of ``certify``.
        file: path or URI; an existing one is replaced.
        sign: file of an Ed25519 private key (PEM); None: not signed.

    Raises:
        UserError: the run is unfinished or damaged, or the key is none.
    """
    from acr_ray.cli.drivers.bundling import write_bundle

    write_bundle(run_folder, file, sign)


def verify(
    file: str,
    *,
    key: str | None = None,
    redraw: int | None = None,
    redraw_seed: int = 0,
    checkpoint: str | None = None,
    root: str | None = None,
    class_map: str | None = None,
    dataset: str | None = None,
    choices: ImportChoices | None = None,
) -> None:
    """Check a bundle, and print what was checked and what was not.

    Args:
        file: of `bundle`.
        key: file of the public key (PEM) that must have signed it.
        redraw, redraw_seed, checkpoint, root, class_map, dataset, choices: as in `run`.

    Raises:
        UserError: an option does not fit.
        CommandFailed: something does not hold; says what.
    """
    _check_redraw(redraw, checkpoint)
    from acr_ray.cli.drivers.audit import redrawing_of
    from acr_ray.cli.drivers.bundling import check_bundle

    check_bundle(file, key, redrawing_of(redraw, redraw_seed, checkpoint, root, class_map, dataset, choices))


def _check_redraw(redraw: int | None, checkpoint: str | None) -> None:
    if redraw and not checkpoint:
        raise UserError("--redraw: needs the model; give --checkpoint CHECKPOINT")


def main(argv: list[str]) -> None:
    """Read the command line, and audit."""
    options = parser().parse_args(argv)
    if options.verify is not None:
        _verify(options)
        return
    if options.key:
        raise UserError("--key: belongs to --verify FILE")
    if options.sign and not options.bundle:
        raise UserError("--sign: belongs to --bundle FILE")
    if not options.runs:
        raise UserError("RUN: missing; give a folder of certify, or --verify FILE")
    if options.bundle:
        if len(options.runs) > 1 or options.out:
            raise UserError("--bundle: takes one RUN, and no --out")
        bundle(options.runs[0], options.bundle, sign=options.sign)
        return
    result = run(
        options.runs,
        RunOptions(out=options.out, tracking=False, overwrite=options.overwrite),
        alpha=options.alpha,
        bound=options.bound,
        certificate=options.certificate,
        rho=options.rho,
        redraw=options.redraw,
        redraw_seed=options.redraw_seed,
        checkpoint=options.checkpoint,
        root=options.root,
        class_map=options.class_map,
        dataset=options.dataset,
        choices=import_choices(options),
    )
    if result.differing:
        raise CommandFailed(f"{result.differing} lines of the ledgers are not what the model draws: see above")


def _verify(options: argparse.Namespace) -> None:
    if options.runs or options.bundle or options.sign or options.out:
        raise UserError("--verify: takes no RUN, --bundle, --sign or --out")
    verify(
        options.verify,
        key=options.key,
        redraw=options.redraw,
        redraw_seed=options.redraw_seed,
        checkpoint=options.checkpoint,
        root=options.root,
        class_map=options.class_map,
        dataset=options.dataset,
        choices=import_choices(options),
    )


def parser() -> Parser:
    """Make the command's parser."""
    usage = (
        "%(prog)s RUN [RUN …] --out DIR [--alpha A] [--redraw K --checkpoint CHECKPOINT] [OPTIONS]\n"
        "       %(prog)s RUN --bundle FILE [--sign KEY] | --verify FILE [--key PUBLIC] [--redraw K …]"
    )
    parser = Parser(prog=command_line("audit"), usage=usage, description=__doc__)
    add = parser.add_argument_group("what to audit").add_argument
    add("runs", metavar="RUN", nargs="*", help="folders of certify")
    add = parser.add_argument_group("one file for others").add_argument
    add("--bundle", metavar="FILE", help="write RUN as one file that others can check; nothing else is done")
    add("--sign", metavar="KEY", help="for --bundle: Ed25519 private key, a PEM file [default: not signed]")
    add("--verify", metavar="FILE", help="check such a file; exit code 1 if something does not hold")
    add("--key", metavar="PUBLIC", help="for --verify: public key (PEM) that must have signed it")
    add = parser.add_argument_group("guarantee").add_argument
    add("--alpha", type=number(1e-300, below=1), metavar="A", help="another error probability [default: the runs']")
    add("--bound", choices=("clopper-pearson", "randomized"), help="another bound [default: the runs']")
    add("--certificate", choices=("one-class", "two-class"), help="another kind of certificate [default: the runs']")
    add(
        "--rho",
        type=number(1e-300, below=1),
        default=0.001,
        metavar="R",
        help="error probability of the statement on all images [default: 0.001]",
    )
    add = parser.add_argument_group("drawing again").add_argument
    add("--redraw", type=whole(1), metavar="K", help="draw K lines of each ledger again")
    add("--redraw-seed", type=whole(0), default=0, metavar="S", help="of the choice of lines [default: 0]")
    add("--checkpoint", metavar="CHECKPOINT", help="the model, for --redraw; as certify takes it")
    add("--data.root", dest="root", metavar="PATH", help="the images, for --redraw; digits need none")
    add("--data.class_map", dest="class_map", metavar="FILE", help="names of class folders, for --redraw")
    own = "your own module:function, if the images come from one, for --redraw"
    add("--dataset", type=dataset_name, metavar="NAME", help=own)
    add_model_options(parser.add_argument_group("a file of weights as --checkpoint"))
    group = parser.add_argument_group(RESULTS)
    add_out_option(group)
    group.add_argument("--overwrite", action="store_true", help="start anew if DIR holds another audit")
    return parser
