import pytest
import torch

from acr_ray.settings import UserError
from acr_ray.settings.hardware import WORKER_ENVIRONMENT, group_environment
from acr_ray.storage import Folder
from acr_ray.training.backend import TIMEOUT_S, listening_torch
from acr_ray.training.control.channel import ControlChannel


def test_workers_wait_longer_for_each_other_than_a_p_a_estimate_takes():
    assert listening_torch("gloo").timeout_s == TIMEOUT_S >= 3 * 3600


def test_workers_hear_what_the_user_asks_of_nccl_and_choose_their_own_network():
    asked = {"NCCL_DEBUG": "INFO", "NCCL_DEBUG_SUBSYS": "INIT", "TORCH_NCCL_BLOCKING_WAIT": "1"}
    own = {"NCCL_SOCKET_IFNAME": "eth7", "GLOO_SOCKET_IFNAME": "eth7", "HOME": "/root", "PATH": "/bin"}
    given = group_environment({**asked, **own})
    assert given == {**WORKER_ENVIRONMENT, **asked} and not any("NCCL" in name for name in WORKER_ENVIRONMENT)


class Workers:
    """What Ray Train gives to a backend, of one process."""

    def __init__(self):
        self.asked = []

    def execute(self, function, *given, **more):
        self.asked.append(function.__name__)
        return [function(*given, **more)]


def test_a_gpu_that_cannot_be_used_is_one_line_before_nccl_is_asked(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    config, workers = listening_torch("nccl", str(tmp_path)), Workers()
    with pytest.raises(UserError, match="finds no GPU that it can use on .*though Ray counts one") as refused:
        config.backend_cls().on_start(workers, config)
    assert workers.asked == ["gpu_problem"] and "\n" not in str(refused.value)
    told = ControlChannel(Folder(str(tmp_path))).take_problem().error()
    assert isinstance(told, UserError) and str(told) == str(refused.value)
