"""Results on a local path or on anything that pyarrow's filesystems read (s3://, gs://, hdfs://)."""

from acr_ray.storage.folder import Folder
from acr_ray.storage.owning import check_own, own
from acr_ray.storage.run_record import amend, open_run

__all__ = ["Folder", "amend", "check_own", "open_run", "own"]
