"""Compare certificates: python -m jobs.report, the same as acr-ray report."""

from acr_ray.cli.commands.report import main
from acr_ray.cli.exits import run_command

if __name__ == "__main__":
    run_command(main)
