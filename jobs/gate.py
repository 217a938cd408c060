"""Decide whether a new model may replace an old one: python -m jobs.gate NEW --against OLD --require REQUIREMENT."""

from acr_ray.cli.commands.gate import main
from acr_ray.cli.exits import run_command

if __name__ == "__main__":
    run_command(main)
