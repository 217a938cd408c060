from acr_ray.settings.hardware import WORKER_ENVIRONMENT, group_environment
from acr_ray.training.backend import TIMEOUT_S, listening_torch


def test_workers_wait_longer_for_each_other_than_a_p_a_estimate_takes():
    assert listening_torch("gloo").timeout_s == TIMEOUT_S >= 3 * 3600


def test_workers_hear_what_the_user_asks_of_nccl_and_choose_their_own_network():
    asked = {"NCCL_DEBUG": "INFO", "NCCL_DEBUG_SUBSYS": "INIT", "TORCH_NCCL_BLOCKING_WAIT": "1"}
    own = {"NCCL_SOCKET_IFNAME": "eth7", "GLOO_SOCKET_IFNAME": "eth7", "HOME": "/root", "PATH": "/bin"}
    given = group_environment({**asked, **own})
    assert given == {**WORKER_ENVIRONMENT, **asked} and not any("NCCL" in name for name in WORKER_ENVIRONMENT)
