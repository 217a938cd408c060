"""Compare training methods over seeds: python -m jobs.compare, the same as acr-ray compare."""

from acr_ray.cli.commands.compare import main
from acr_ray.cli.exits import run_command

if __name__ == "__main__":
    run_command(main)
