"""Submit a job with its code alone: python -m jobs.submit, the same as acr-ray submit."""

from acr_ray.cli.commands.submit import main
from acr_ray.cli.exits import run_command

if __name__ == "__main__":
    run_command(main)
