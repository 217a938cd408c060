"""What is made of the nodes' answers: each failure names the node and says what to do."""

import copy

import pytest

from acr_ray.preflight import findings
from acr_ray.preflight.facts import Questions, asked_data, facts
from acr_ray.preflight.findings import FAILED, OK, WARNING
from tests.fakes.images import SYNSETS, write_imagenet

GIB = 2**30
VERSIONS = {"python": "3.11.7", "ray": "2.60.0", "torch": "2.15.0", "cuda": "13.0", "acr_ray code": "abc"}
NODE = {
    "host": "a",
    "versions": VERSIONS,
    "shared_memory": {"total": 4 * GIB, "free": 2 * GIB},
    "temporary": {"total": 9 * GIB, "free": 5 * GIB},
    "gpus": [],
    "storage": {"sees": True},
    "data": {"images": 1297, "fingerprint": "f"},
}


def nodes(**second):
    """Two nodes; the second one as given."""
    return {"10.0.0.1": copy.deepcopy(NODE), "10.0.0.2": copy.deepcopy(NODE) | second}


CHECKS = {
    "nodes": findings.answered,
    "versions": lambda found: findings.same_versions(VERSIONS, found),
    "/dev/shm": findings.shared_memory,
    "disk": findings.temporary,
    "storage": lambda found: findings.storage("/runs", found, found),
    "data": lambda found: findings.data("digits", None, found),
    "resources": lambda found: findings.resources({"CPU": 4}, found, 2, 0, 1),
}


@pytest.mark.parametrize("check", CHECKS)
def test_nothing_is_wrong_where_nothing_is(check):
    found = CHECKS[check](nodes())
    assert (found.status, found.check) == (OK, check) and "\n" not in found.text


@pytest.mark.parametrize(
    ("check", "second", "status", "said"),
    [
        ("nodes", {"lost": "nothing within 60 s"}, FAILED, "nothing within 60 s"),
        ("versions", {"versions": VERSIONS | {"torch": "2.14.0"}}, FAILED, "torch 2.14.0 (driver: 2.15.0)"),
        ("versions", {"versions": VERSIONS | {"acr_ray code": "old"}}, FAILED, "acr_ray code old (driver: abc)"),
        ("versions", {"versions": {}}, FAILED, "ray missing"),
        ("/dev/shm", {"shared_memory": {"total": GIB, "free": 2**20}}, FAILED, "has 1 MiB free of 1.0 GiB"),
        ("disk", {"temporary": {"total": GIB, "free": 2**20}}, WARNING, "has 1 MiB free"),
        ("storage", {"storage": {"sees": False}}, FAILED, "does not see what the driver wrote there"),
        ("storage", {"storage": {"sees": None, "error": "denied"}}, FAILED, "(denied)"),
        ("data", {"data": {"error": "--data.root /data: absent"}}, FAILED, "--data.root /data: absent"),
        ("data", {"data": {"images": 9, "fingerprint": "g"}}, FAILED, "(9 images) sees other images"),
        ("resources", {"gpus": [{"name": "H100"}]}, WARNING, "Ray knows of 0 GPUs, the drivers of 1"),
    ],
)
def test_what_is_wrong_is_said_with_its_node(check, second, status, said):
    found = CHECKS[check](nodes(**second))
    assert found.status == status and said in found.text and "\n" not in found.text
    assert check == "resources" or "10.0.0.2" in found.text
    assert found.text.count("10.0.0.1") == 0


def test_cuda_and_nccl_are_compared_between_machines_with_gpus_only():
    versions = VERSIONS | {"cuda": "none"}
    assert findings.same_versions(VERSIONS, nodes(versions=versions)).status == OK
    assert findings.same_versions(VERSIONS, nodes(versions=versions, gpus=[{"name": "H100"}])).status == FAILED


def test_storage_that_only_nodes_see_fails_too():
    found = findings.storage("/runs", nodes(), ["10.0.0.1"])
    assert found.status == FAILED and "the driver does not see what 10.0.0.2 wrote" in found.text


@pytest.mark.parametrize(
    ("skew", "error", "status"),
    [(0.1, 0.001, OK), (3.0, 0.01, WARNING), (-3.0, 0.01, WARNING), (3.0, 2.0, OK), (90.0, 0.1, FAILED)],
)
def test_clocks_count_as_apart_only_beyond_what_the_measurement_leaves_open(skew, error, status):
    assert findings.clocks({"10.0.0.1": (0.0, 0.001), "10.0.0.2": (skew, error)}).status == status


def test_workers_that_would_never_fit_are_counted():
    found = findings.resources({"CPU": 4}, nodes(), 5, 0, 1)
    assert found.status == FAILED and "5 workers need 5 CPUs, the cluster has 4" in found.text
    assert findings.resources({"CPU": 4}, nodes(), 1, 1, 1).status == FAILED


def test_a_machine_answers_for_itself(tmp_path):
    (tmp_path / "probe").mkdir()
    (tmp_path / "probe" / "driver").write_text("")
    questions = Questions(str(tmp_path), "probe", "digits", None, "test")
    found = facts(questions, "n1")
    assert found["storage"] == {"sees": True} and (tmp_path / "probe" / "node-n1").read_text() == "n1"
    assert found["data"]["images"] == 500 and found["versions"]["torch"].startswith("2.")
    assert facts(Questions(str(tmp_path), "other"), "n1")["storage"] == {"sees": False}
    assert "no-such" in facts(Questions(dataset="cifar10", root="/no-such"), "n1")["data"]["error"]


def test_a_node_decodes_some_of_the_images(tmp_path):
    root = write_imagenet(tmp_path / "i")
    asked = Questions(dataset="imagenet", root=str(root), split="train")
    assert asked_data(asked)["decoded"] == 12
    (root / "train" / SYNSETS[0] / "notes.txt").write_text("x")
    said = findings.data("imagenet", str(root), {"a": {"data": asked_data(asked)}}).text
    assert "12 images on every node, 12 of them decoded" in said and "1 .txt (not an image's ending)" in said
    broken = sorted((root / "train").rglob("*.JPEG"))[-1]
    broken.write_bytes(broken.read_bytes()[:-200])
    assert f"{broken}: broken image file" in asked_data(asked)["error"]
