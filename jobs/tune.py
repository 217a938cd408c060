"""Search hyperparameters: python -m jobs.tune, the same as acr-ray tune."""

from acr_ray.cli.commands.tune import main
from acr_ray.cli.exits import run_command

if __name__ == "__main__":
    run_command(main)
