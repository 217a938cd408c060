"""Look before a long run: python -m jobs.doctor, the same as acr-ray doctor."""

from acr_ray.cli.commands.doctor import main
from acr_ray.cli.exits import run_command

if __name__ == "__main__":
    run_command(main)
