"""MLflow, and nobody else talks to it."""

from acr_ray.tracking.places import default_uri, in_job_copy
from acr_ray.tracking.quiet import quieten
from acr_ray.tracking.tracker import Tracker

__all__ = ["Tracker", "default_uri", "in_job_copy", "quieten"]
