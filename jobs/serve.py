"""Answer requests with certified classes and radii: python -m jobs.serve, the same as acr-ray serve."""

from acr_ray.cli.commands.serve import main
from acr_ray.cli.exits import run_command

if __name__ == "__main__":
    run_command(main)
