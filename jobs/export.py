"""Make a folder ready to upload of a model: python -m jobs.export, the same as acr-ray export."""

from acr_ray.cli.commands.export import main
from acr_ray.cli.exits import run_command

if __name__ == "__main__":
    run_command(main)
