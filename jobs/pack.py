"""Pack ImageNet's class folders into a few large files: python -m jobs.pack, the same as acr-ray pack."""

from acr_ray.cli.commands.pack import main
from acr_ray.cli.exits import run_command

if __name__ == "__main__":
    run_command(main)
