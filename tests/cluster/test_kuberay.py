"""The Kubernetes manifests: by Ray's reading, Kubernetes' and KubeRay's schemas, and our own rules."""

import copy
import json
import re

import jsonschema
import pytest
import yaml
from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr
from ray.serve._private.api import call_user_app_builder_with_args_if_necessary
from ray.serve.schema import ServeDeploySchema

import acr_ray
from acr_ray.serving.deployment import TOKEN_VARIABLE, Deployment, build
from acr_ray.serving.seeds import SECRET_VARIABLE
from acr_ray.settings import UserError
from tests.cluster.files import CLUSTER, KUBERAY, SCHEMAS, changed, manifests, pod_templates, ray_version, strict, walk

pytestmark = pytest.mark.static
FILES = [path for path in sorted(KUBERAY.glob("*.yaml")) if not path.name.startswith("kustom")]
CLUSTER_FILE, JOB, MLFLOW = KUBERAY / "raycluster.yaml", KUBERAY / "rayjob.yaml", KUBERAY / "mlflow.yaml"
SERVICE = KUBERAY / "rayservice.yaml"
VERSION = "1.31"
IMAGES = {f"{name}:{acr_ray.__version__.rsplit('.', 1)[0]}" for name in ("acr-ray", "acr-ray-mlflow")}


def check_by_ray(manifest: dict) -> dict:
    """The autoscaler's configuration of a RayCluster; raises where it cannot be derived."""
    manifest = copy.deepcopy(manifest)
    manifest["metadata"]["namespace"] = "default"
    return _derive_autoscaling_config_from_ray_cr(manifest)


def check_by_kubernetes(manifest: dict) -> None:
    """jsonschema.ValidationError where Kubernetes would refuse it."""
    import kubernetes_validate  # here: `make static-test` installs it, and every other target collects this file too

    for template in pod_templates(manifest):
        wrapped = {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "x"}, "template": template}
        kubernetes_validate.validate(wrapped, VERSION, strict=True)
    if "ray.io" not in manifest["apiVersion"]:
        kubernetes_validate.validate(manifest, VERSION, strict=True)


def check_by_kuberay(manifest: dict) -> None:
    path = SCHEMAS / f"{manifest['kind']}.v1.schema.json"
    if not path.exists():
        pytest.skip("KubeRay's schemas (shared/kuberay beside the checkout) are not here")
    jsonschema.validate(manifest, strict(json.loads(path.read_text())))


def check_ours(documents: list[dict]) -> list[str]:
    """What is wrong with a file's manifests by our own rules."""
    wrong = []
    for document in documents:
        spec = document.get("spec", {})
        cluster = (
            spec.get("rayClusterSpec")
            or spec.get("rayClusterConfig")
            or (spec if document["kind"] == "RayCluster" else None)
        )
        named = [mapping["name"] for mapping in walk(document) if {"name", "value"} <= set(mapping)]
        told = [name for name in named if re.search("PASSWORD|SECRET|TOKEN|_KEY", name)]
        if document["kind"] == "Secret" or told or re.search(r"://[^/\s]+:[^/\s]+@", json.dumps(document)):
            wrong.append("secrets are not in files")
        if cluster:
            if cluster["rayVersion"] != ray_version():
                wrong.append(f"rayVersion is not {ray_version()}, the version of constraints.txt")
            if cluster.get("authOptions", {}).get("mode") != "token":
                wrong.append("no token authentication")
            if cluster["headGroupSpec"]["rayStartParams"].get("num-cpus") != "0":
                wrong.append("the head is not free of work")
        for template in pod_templates(document):
            wrong += _wrong_pod(template, ray=document["kind"] != "Deployment")
    return wrong


def _wrong_pod(template: dict, ray: bool) -> list[str]:
    wrong, pod = [], template["spec"]
    user = pod.get("securityContext", {})
    if not (user.get("runAsNonRoot") and user.get("runAsUser") == 1000):
        wrong.append("runs as root, or as another user than the image's")
    if ray and "app.kubernetes.io/name" in template["metadata"]["labels"]:
        wrong.append("the operator's services do not find pods whose app.kubernetes.io/name is another")
    claims = {volume["name"] for volume in pod.get("volumes", [])}
    for container in pod["containers"]:
        if container["image"] not in IMAGES:
            wrong.append(f"image {container['image']} is none of {sorted(IMAGES)}")
        if not all(container["resources"].get(kind, {}).get("memory") for kind in ("requests", "limits")):
            wrong.append(f"{container['name']}: no limit of memory")
        if container["securityContext"].get("allowPrivilegeEscalation") is not False:
            wrong.append(f"{container['name']}: may become root")
        if container["name"] != "submitter" and not {"livenessProbe", "readinessProbe"} <= set(container):
            wrong.append(f"{container['name']}: nobody asks whether it lives")
        for mount in container.get("volumeMounts", []):
            if mount["name"] not in claims:
                wrong.append(f"volume {mount['name']} is mounted and not there")
        if container["name"] in ("ray-head", "ray-worker"):
            shared = [volume for volume in pod["volumes"] if volume.get("emptyDir", {}).get("medium") == "Memory"]
            if not shared or not any(mount["mountPath"] == "/dev/shm" for mount in container["volumeMounts"]):
                wrong.append(f"{container['name']}: /dev/shm is not of memory")
    return wrong


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_the_manifests_are_right(path):
    documents = manifests(path.read_text())
    assert documents and check_ours(documents) == []
    for document in documents:
        check_by_kubernetes(document)


def test_ray_derives_its_autoscaling_from_the_cluster():
    config = check_by_ray(*manifests(CLUSTER_FILE.read_text()))
    assert config["available_node_types"]["headgroup"]["resources"]["CPU"] == 0
    gpu = config["available_node_types"]["gpu"]
    assert gpu["resources"]["GPU"] == 1 and (gpu["min_workers"], gpu["max_workers"]) == (0, 8)
    assert config["idle_timeout_minutes"] == 10


@pytest.mark.parametrize("path", [CLUSTER_FILE, JOB], ids=lambda path: path.name)
def test_kuberay_accepts_the_resources(path):
    check_by_kuberay(*manifests(path.read_text()))


def service_cluster() -> dict:
    """The cluster of the RayService, as a RayCluster."""
    (service,) = manifests(SERVICE.read_text())
    (cluster,) = manifests(CLUSTER_FILE.read_text())
    return cluster | {"spec": copy.deepcopy(service["spec"]["rayClusterConfig"])}


def test_the_service_has_the_cluster_of_the_cluster_and_its_secrets():
    assert check_by_ray(service_cluster())["available_node_types"]["gpu"]["resources"]["GPU"] == 1
    check_by_kuberay(service_cluster())
    found = service_cluster()["spec"]
    for template in (found["headGroupSpec"]["template"], found["workerGroupSpecs"][0]["template"]):
        (container,) = template["spec"]["containers"]
        secrets = [entry for entry in container["env"] if "valueFrom" in entry]
        assert [entry["name"] for entry in secrets] == [TOKEN_VARIABLE, SECRET_VARIABLE]
        container["env"] = [entry for entry in container["env"] if "value" in entry]
        container["ports"] = [port for port in container["ports"] if port["name"] != "serve"]
        for volume in template["spec"]["volumes"]:
            if volume["name"] == "results":
                del volume["persistentVolumeClaim"]["readOnly"]
    (cluster,) = manifests(CLUSTER_FILE.read_text())
    assert found == cluster["spec"]


def test_ray_serve_and_we_accept_the_application():
    (service,) = manifests(SERVICE.read_text())
    config = ServeDeploySchema.model_validate(yaml.safe_load(service["spec"]["serveConfigV2"]))
    (application,) = config.applications
    assert application.import_path == f"{build.__module__}:{build.__name__}"
    assert Deployment.build(application.args).settings.max_draws == 100_000
    assert call_user_app_builder_with_args_if_necessary(build, application.args) is not None
    with pytest.raises(UserError, match="replica"):
        build(application.args | {"replica": 2})


def test_the_job_has_the_cluster_of_the_cluster():
    (cluster,), (job,) = manifests(CLUSTER_FILE.read_text()), manifests(JOB.read_text())
    assert job["spec"]["rayClusterSpec"] == cluster["spec"]


def test_every_reference_within_the_manifests_is_met():
    documents = [document for path in FILES for document in manifests(path.read_text())]
    claims = {d["metadata"]["name"] for d in documents if d["kind"] == "PersistentVolumeClaim"}
    used = {m["claimName"] for d in documents for m in walk(d) if "claimName" in m}
    assert used == claims
    services = {d["metadata"]["name"] for d in documents if d["kind"] == "Service"}
    named = {m["value"] for d in documents for m in walk(d) if m.get("name") == "MLFLOW_TRACKING_URI"}
    assert named == {f"http://{name}:5000" for name in services}


def test_every_secret_is_documented():
    readme = (CLUSTER / "README.md").read_text()
    documents = [document for path in FILES for document in manifests(path.read_text())]
    references = [m["secretKeyRef"] for document in documents for m in walk(document) if "secretKeyRef" in m]
    found = {(reference["name"], reference["key"]) for reference in references}
    assert found, "the check reads secretKeyRef"
    for name, key in found:
        assert f"`{name}`" in readme and key in readme, f"secret {name}, key {key}: not in cluster/README.md"


def test_policies_are_about_pods_that_exist():
    documents = [document for path in FILES for document in manifests(path.read_text())]
    labels = [template["metadata"]["labels"] for d in documents for template in pod_templates(d)]
    for policy in (d for d in documents if d["kind"] == "NetworkPolicy"):
        ours = [policy["spec"]["podSelector"]]
        ours += [m["podSelector"] for m in walk(policy["spec"]["ingress"]) if list(m) == ["podSelector"]]
        for selector in ours:
            assert any(selector["matchLabels"].items() <= label.items() for label in labels), selector


def everything(path, text):
    """All checks of a file; raises, or returns what is wrong by our rules."""
    documents = manifests(text)
    for document in documents:
        check_by_kubernetes(document)
        if document["kind"] == "RayCluster":
            check_by_ray(document)
        if "ray.io" in document["apiVersion"] and SCHEMAS.is_dir():
            check_by_kuberay(document)
    return check_ours(documents)


@pytest.mark.parametrize(
    "path, line, to",
    [
        (CLUSTER_FILE, f'rayVersion: "{ray_version()}"', 'rayVersion: "2.9.3"'),
        (CLUSTER_FILE, "authOptions: {mode: token}", "authOptions: {mode: disabled}"),
        (CLUSTER_FILE, 'num-cpus: "0"', 'num-cpus: "4"'),
        (CLUSTER_FILE, "acr-ray:0.2", "acr-ray:latest"),
        (CLUSTER_FILE, "labels: {acr-ray/member: ray}\n      spec", "labels: {app.kubernetes.io/name: a}\n      spec"),
        (CLUSTER_FILE, "runAsUser: 1000  #", "runAsUser: 0  #"),
        (CLUSTER_FILE, "{medium: Memory, sizeLimit: 2Gi}", "{sizeLimit: 2Gi}"),
        (CLUSTER_FILE, "{name: tmp, mountPath: /tmp}", "{name: temp, mountPath: /tmp}"),
        (MLFLOW, "{name: HOME, value: /tmp}", "{name: A, value: 'postgresql://me:word@host/db'}"),
        (MLFLOW, "{name: HOME, value: /tmp}", "{name: PGPASSWORD, value: word}"),
    ],
)
def test_our_rules_catch_a_wrong_line(path, line, to):
    assert everything(path, path.read_text()) == []
    assert check_ours(manifests(changed(path, line, to))) != []


@pytest.mark.parametrize(
    "path, line, to",
    [
        (CLUSTER_FILE, 'limits: {cpu: "4", memory: 8Gi}', 'limits: {cpu: "4", memory: 8 Gigabytes}'),
        (CLUSTER_FILE, "readinessProbe: &head-probe", "readynessProbe: &head-probe"),
        (CLUSTER_FILE, "containerPort: 6379", "containerPort: gcs"),
        (MLFLOW, "automountServiceAccountToken: false", "automountServiceAccountToken: never"),
        (MLFLOW, "strategy: {type: Recreate}", "strategie: {type: Recreate}"),
        (KUBERAY / "network-policy.yaml", "policyTypes: [Ingress]", "policyType: [Ingress]"),
        (KUBERAY / "storage.yaml", "accessModes: [ReadWriteMany]", "accessModes: ReadWriteMany"),
    ],
)
def test_kubernetes_or_ray_refuse_a_wrong_line(path, line, to):
    with pytest.raises((jsonschema.ValidationError, ValueError)):
        everything(path, changed(path, line, to))


@pytest.mark.parametrize(
    "line, to",
    [
        ("enableInTreeAutoscaling: true", "enableInTreeAutoscalling: true"),
        ("idleTimeoutSeconds: 600", "idleTimeout: 600"),
        ("authOptions: {mode: token}", "authOptions: {mode: tokens}"),
        ("maxReplicas: 8", "maxReplicas: eight"),
    ],
)
def test_kuberay_refuses_a_wrong_line(line, to):
    with pytest.raises(jsonschema.ValidationError):
        check_by_kuberay(*manifests(changed(CLUSTER_FILE, line, to)))
