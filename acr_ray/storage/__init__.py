"""Results on a local path or on anything that pyarrow's filesystems read (s3://, gs://, hdfs://)."""

from acr_ray.storage.claim import amend, claim
from acr_ray.storage.folder import Folder
from acr_ray.storage.owning import check_own, own

__all__ = ["Folder", "amend", "check_own", "claim", "own"]
