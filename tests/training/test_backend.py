from acr_ray.training.backend import TIMEOUT_S, listening_torch


def test_workers_wait_longer_for_each_other_than_a_p_a_estimate_takes():
    assert listening_torch("gloo").timeout_s == TIMEOUT_S >= 3 * 3600
