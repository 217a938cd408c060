"""The list of jobs: python -m jobs."""

import sys

from acr_ray.cli.app import list_jobs

if __name__ == "__main__":
    sys.exit(list_jobs(sys.argv[1:]))
