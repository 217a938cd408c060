"""Import weights that other code wrote: python -m jobs.import, the same as acr-ray import."""

from acr_ray.cli.commands.import_ import main
from acr_ray.cli.exits import run_command

if __name__ == "__main__":
    run_command(main)
