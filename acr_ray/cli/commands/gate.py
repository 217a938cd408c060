"""Decide whether a new model may replace an old one.

NEW is a checkpoint, or a folder of certify; --against names the old model's certification. Both are compared image by
image, in a random order, with the same settings and noise seeds, and drawing ends as soon as the answer is known. Exit
code 0: all requirements hold. 1: one does not, and a line says which.
"""

from __future__ import annotations

from collections.abc import Sequence

from acr_ray.cli.command_line import command_line
from acr_ray.cli.commands.certify import actors_range
from acr_ray.cli.exits import CommandFailed
from acr_ray.cli.options import CLUSTER, add_model_options, add_run_options, import_choices
from acr_ray.cli.parser import Parser, dataset_name, number, whole
from acr_ray.cli.results import GateResult
from acr_ray.cli.session import RunOptions
from acr_ray.serving.requirements import read_requirements
from acr_ray.settings.imports import ImportChoices


def run(
    new: str,
    options: RunOptions,
    *,
    against: str,
    require: Sequence[str],
    alpha: float = 0.05,
    population: bool = False,
    seed: int = 0,
    root: str | None = None,
    class_map: str | None = None,
    dataset: str | None = None,
    actors: tuple[int, int] | None = None,
    gpus_per_actor: float = 0,
    choices: ImportChoices | None = None,
    promote: str | None = None,
    on_ray: bool = True,
) -> GateResult:
    """Judge a new model against an old one's certification, or resume that.

    Args:
        new: a checkpoint as ``certify`` takes it, or a folder of ``certify``, of which nothing is drawn.
        options: where results go, and how they are tracked.
        against: folder of the old model's certification, finished.
        require: requirements such as ``"certified_accuracy@0.5 >= -0.5pt"``; see
            `acr_ray.serving.requirements.read_requirement`.
        alpha: probability of a wrong answer, in (0, 1).
        population: about the population that the images are a sample of; False: about these images.
        seed: of the order in which images are seen.
        root, class_map, dataset: where the images are, if ``new`` is a checkpoint; the old run's file is not followed.
        actors, gpus_per_actor, on_ray: as in ``certify``.
        choices: which network it is, for a file of weights.
        promote: alias of MLflow's registry that moves to ``new``, then ``models:/NAME/VERSION``, if the gate opens.

    Returns:
        The answer; a gate that stays closed is no error here, but the command's exit code is 1.

    Raises:
        UserError: a requirement cannot be read, or the two do not fit together; nothing was made.
        CommandFailed: samplers or storage were lost; the same call resumes.
    """
    requirements = read_requirements(require)
    # These load torch, which --help and a mistake need not wait for.
    from acr_ray.cli.drivers.gate import gate
    from acr_ray.cli.drivers.gate_sources import GateQuestion
    from acr_ray.cli.drivers.samplers import Samplers

    question = GateQuestion(
        new,
        against,
        requirements,
        alpha,
        population,
        seed,
        root,
        class_map,
        dataset,
        choices or ImportChoices(),
        promote,
    )
    return gate(question, options, Samplers(actors, gpus_per_actor, on_ray))


def main(argv: list[str]) -> None:
    """Read the command line, and judge."""
    options = parser().parse_args(argv)
    result = run(
        options.new,
        RunOptions.of(options),
        against=options.against,
        require=options.require,
        alpha=options.alpha,
        population=options.population,
        seed=options.seed,
        root=options.root,
        class_map=options.class_map,
        dataset=options.dataset,
        actors=options.actors,
        gpus_per_actor=options.gpus_per_actor,
        choices=import_choices(options),
        promote=options.promote,
    )
    if not result.opened:
        raise CommandFailed(f"the gate stays closed: {result.why}")
    print(f"the gate is open: {result.why}")


def parser() -> Parser:
    """Make the command's parser."""
    usage = "%(prog)s NEW --against CERTIFIED --require REQUIREMENT [--require …] --out DIR [OPTIONS]"
    parser = Parser(prog=command_line("gate"), usage=usage, description=__doc__)
    add = parser.add_argument_group("what is compared").add_argument
    add("new", metavar="NEW", help="the new model: a checkpoint as certify takes it, or a folder of certify")
    add("--against", metavar="CERTIFIED", required=True, help="the old model's certification: a folder of certify")
    add(
        "--data.root",
        dest="root",
        metavar="PATH",
        help="the images; not for digits, or a certified NEW",
    )
    add("--data.class_map", dest="class_map", metavar="FILE", help="names of class folders")
    add("--dataset", type=dataset_name, metavar="NAME", help="your own module:function, if the images come from one")
    add = parser.add_argument_group("what is required").add_argument
    add(
        "--require",
        action="append",
        default=[],
        metavar="REQUIREMENT",
        help="new minus old: 'certified_accuracy@R >= -0.5pt', 'worst_class@R >= -2pt' (each class's certified "
        "accuracy), 'hard_share <= +1pt', 'abstained <= +1pt'; several may be given, and all must hold",
    )
    add("--alpha", type=number(1e-12, below=1), default=0.05, metavar="A", help="error probability [default: 0.05]")
    add(
        "--population",
        action="store_true",
        help="judge the population that the images are a sample of [default: these images]",
    )
    add("--seed", type=whole(0), default=0, metavar="S", help="of the order of images [default: 0]")
    add = parser.add_argument_group("what follows").add_argument
    add(
        "--promote",
        metavar="ALIAS",
        help="if the gate opens, move this alias of MLflow's registry to NEW, a models:/NAME/VERSION",
    )
    add_model_options(parser.add_argument_group("a file of weights"))
    group = parser.add_argument_group(CLUSTER)
    group.add_argument(
        "--actors", type=actors_range, metavar="K", help="sampler actors [>= 1, or LEAST:MOST; default: all that fit]"
    )
    group.add_argument(
        "--gpus-per-actor", type=number(0), default=0, metavar="G", help="0: CPU; a fraction shares a GPU [default: 0]"
    )
    add_run_options(parser)
    return parser
