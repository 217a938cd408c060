"""MLflow, and nobody else talks to it."""

from acr_ray.tracking.tracker import Tracker, default_uri, in_job_copy, quieten

__all__ = ["Tracker", "default_uri", "in_job_copy", "quieten"]
