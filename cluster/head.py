"""The private Ray head of `acr_ray.cli.private_head`, from a checkout."""

from acr_ray.cli.private_head import LOOPBACK, HeadFailed, PrivateHead

__all__ = ["LOOPBACK", "HeadFailed", "PrivateHead"]
