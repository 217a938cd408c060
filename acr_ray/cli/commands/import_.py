"""Import weights that other code wrote.

CHECKPOINT is a .safetensors file, or a .pt, .pth, .pth.tar, .ckpt or .bin file of torch.save, or hf://owner/name; it is
read as tensors and plain values, and nothing in it is run. Leaves checkpoint/ (model.safetensors, model.json) and
summary.json in DIR, which certify takes. A file of the field's code (arch, state_dict, epoch) needs no --model.
"""

from __future__ import annotations

from acr_ray.cli.command_line import command_line
from acr_ray.cli.options import RESULTS, add_model_options, add_out_option, import_choices
from acr_ray.cli.parser import Parser
from acr_ray.cli.results import ImportResult
from acr_ray.cli.session import RunOptions
from acr_ray.settings.errors import UserError
from acr_ray.settings.imports import ImportChoices


def run(
    checkpoint: str,
    options: RunOptions,
    dataset: str | None,
    choices: ImportChoices | None = None,
    *,
    root: str | None = None,
    class_map: str | None = None,
    class_names: str | None = None,
    split: str = "test",
) -> ImportResult:
    """Write weights that other code wrote as a model folder of ours.

    Args:
        checkpoint: a file, or ``hf://owner/name[/file]``.
        options: where results go; nothing is logged to MLflow.
        dataset: name of the images that the model is for; gives shape and classes.
        choices: which network it is, and what the file does not say.
        root: folder of the images; digits and cifar10 need none here.
        class_map: file that names class folders.
        class_names: file with the name of a class in each line, in the order of the logits; None: the data set's.
        split: whose images are looked at, ``train`` or ``test``.

    Raises:
        UserError: the file is refused, or is not this network's for these images; or the folder can't be written.
    """
    if not dataset:
        raise UserError("--dataset: missing; the images that the model is for give their shape and classes")
    from acr_ray.cli.drivers.importing import import_model  # loads torch, which --help and a mistake need not wait for

    return import_model(checkpoint, options, dataset, choices or ImportChoices(), root, class_map, class_names, split)


def main(argv: list[str]) -> None:
    """Read the command line, and import."""
    options = parser().parse_args(argv)
    run(
        options.checkpoint,
        RunOptions(out=options.out, tracking=False, overwrite=options.overwrite),
        options.dataset,
        import_choices(options),
        root=options.root,
        class_map=options.class_map,
        class_names=options.class_names,
        split=options.split,
    )


def parser() -> Parser:
    """Make the command's parser."""
    usage = "%(prog)s CHECKPOINT --dataset NAME --out DIR [--model NAME] [OPTIONS]"
    parser = Parser(prog=command_line("import"), usage=usage, description=__doc__)
    group = parser.add_argument_group("what to import")
    group.add_argument("checkpoint", metavar="CHECKPOINT", help="a file of weights, or hf://owner/name[/file]")
    add_model_options(group, sigma=True)
    add = parser.add_argument_group("the images it is for").add_argument
    add("--dataset", metavar="NAME", help="their name, as certify takes it [required]")
    add("--data.root", dest="root", metavar="PATH", help="their folder; digits and cifar10 need none here")
    add("--data.class_map", dest="class_map", metavar="FILE", help="names of class folders")
    add("--class-names", metavar="FILE", help="a class a line, in the order of the logits [default: the data set's]")
    add("--split", choices=("test", "train"), default="test", help="whose images are looked at [default: test]")
    group = parser.add_argument_group(RESULTS)
    add_out_option(group)
    group.add_argument("--overwrite", action="store_true", help="start anew if DIR holds another import")
    return parser
