"""Audit certifications from their ledgers alone: python -m jobs.audit, the same as acr-ray audit."""

from acr_ray.cli.commands.audit import main
from acr_ray.cli.exits import run_command

if __name__ == "__main__":
    run_command(main)
