"""Certify a classifier: python -m jobs.certify, the same as acr-ray certify."""

from acr_ray.cli.commands.certify import main
from acr_ray.cli.exits import run_command

if __name__ == "__main__":
    run_command(main)
