"""Make a folder ready to upload of a model.

RUN is a folder of train or import, or a checkpoint/. Leaves model.safetensors, model.json, the same card as
config.json, README.md (the model card: sigma, certified accuracy, p_A quantiles, the command that reproduces them) and
summary.json in DIR. Nothing is uploaded.
"""

from __future__ import annotations

from acr_ray.cli.command_line import command_line
from acr_ray.cli.options import RESULTS, add_out_option
from acr_ray.cli.parser import Parser
from acr_ray.cli.results import ExportResult
from acr_ray.cli.session import RunOptions
from acr_ray.settings.errors import UserError


def run(
    source: str | None, options: RunOptions, *, certificates: str | None = None, model: str | None = None
) -> ExportResult:
    """Write a folder ready to upload.

    Args:
        source: a folder of ``train`` or ``import``, or a ``checkpoint/``.
        options: where the folder goes; nothing is logged to MLflow.
        certificates: a folder of ``certify`` with certificates of this model, for the model card.
        model: the network, if it is ``module:function``: code of your own is imported only if you name it.

    Raises:
        UserError: there is no model, the certificates are another model's, or the folder can't be written.
    """
    if not source:
        raise UserError("RUN: missing; give a folder of train or import, or a checkpoint/")
    from acr_ray.cli.drivers.exporting import export  # loads torch, which --help and a mistake need not wait for

    return export(source, options, certificates, model)


def main(argv: list[str]) -> None:
    """Read the command line, and export."""
    options = parser().parse_args(argv)
    run(
        options.source,
        RunOptions(out=options.out, tracking=False, overwrite=options.overwrite),
        certificates=options.certificates,
        model=options.model,
    )


def parser() -> Parser:
    """Make the command's parser."""
    usage = "%(prog)s RUN --out DIR [--certificates CERTIFY_DIR] [OPTIONS]"
    parser = Parser(prog=command_line("export"), usage=usage, description=__doc__)
    add = parser.add_argument_group("what to export").add_argument
    add("source", metavar="RUN", nargs="?", help="folder of train or import, or a checkpoint/")
    add("--certificates", metavar="CERTIFY_DIR", help="folder of certify, of this model: its numbers go into README.md")
    add("--model", metavar="NAME", help="the network, if it is code of yours: module:function")
    group = parser.add_argument_group(RESULTS)
    add_out_option(group)
    group.add_argument("--overwrite", action="store_true", help="start anew if DIR holds another export")
    return parser
