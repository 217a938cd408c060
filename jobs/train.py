"""Train a classifier by a recipe: python -m jobs.train, the same as acr-ray train."""

from acr_ray.cli.commands.train import main
from acr_ray.cli.exits import run_command

if __name__ == "__main__":
    run_command(main)
