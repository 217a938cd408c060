"""The whole path on real handwritten digits: python -m jobs.demo, the same as acr-ray demo."""

from acr_ray.cli.commands.demo import main
from acr_ray.cli.exits import run_command

if __name__ == "__main__":
    run_command(main)
