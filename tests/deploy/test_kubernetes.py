"""What the manifests promise, looked at as Kustomize renders them."""

from __future__ import annotations

import re
import warnings
from typing import Any

import kubernetes_validate
import pytest
import yaml

from tests.deploy.deployed import (
    DEPLOY,
    KUSTOMIZATIONS,
    REPOSITORY,
    Document,
    compose,
    constraint,
    one,
    pods,
    ray_clusters,
    rendered,
)

every = pytest.mark.parametrize("folder", KUSTOMIZATIONS)
STORES = {
    "MLFLOW_BACKEND_STORE_URI", "MLFLOW_DB_PASSWORD", "MLFLOW_TRACKING_URI", "REMEDY_DB_PASSWORD", "REMEDY_STORAGE",
}  # fmt: skip

# The fields of KubeRay's API (v1, operator 1.7). Its CRDs themselves are in no package of PyPI or npm; with these lists
# a field that is misspelt or put into the wrong place is found, and what lies in the pod templates is checked against
# Kubernetes' own schema.
CLUSTER = {
    "authOptions", "autoscalerOptions", "enableInTreeAutoscaling", "gcsFaultToleranceOptions", "headGroupSpec",
    "headServiceAnnotations", "managedBy", "rayVersion", "suspend", "upgradeStrategy", "workerGroupSpecs",
}  # fmt: skip
HEAD = {"enableIngress", "headService", "labels", "rayStartParams", "resources", "serviceType", "template"}
WORKERS = {
    "groupName", "idleTimeoutSeconds", "labels", "maxReplicas", "minReplicas", "numOfHosts", "rayStartParams",
    "replicas", "resources", "scaleStrategy", "suspend", "template",
}  # fmt: skip
JOB = {
    "activeDeadlineSeconds", "backoffLimit", "clusterSelector", "deletionStrategy", "entrypoint", "entrypointNumCpus",
    "entrypointNumGpus", "entrypointResources", "jobId", "managedBy", "metadata", "rayClusterSpec", "runtimeEnvYAML",
    "shutdownAfterJobFinishes", "submissionMode", "submitterConfig", "submitterPodTemplate", "suspend",
    "ttlSecondsAfterFinished",
}  # fmt: skip
OTHERS = {"RayCluster", "RayJob", "LocalQueue"}


def environment(container: Document) -> dict[str, Any]:
    return {entry["name"]: entry for entry in container.get("env", [])}


def containers(pod: Document) -> list[Document]:
    return pod["spec"]["containers"] + pod["spec"].get("initContainers", [])


@every
@pytest.mark.parametrize("version", ["1.32.0", kubernetes_validate.latest_version()])
def test_against_the_schemas_of_kubernetes(folder: str, version: str) -> None:
    for document in rendered(folder):
        if document["kind"] not in OTHERS:
            kubernetes_validate.validate(document, version, strict=True)
    for name, pod in pods(rendered(folder)).items():
        whole = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "of-a-template", **pod.get("metadata", {})}}
        kubernetes_validate.validate({**whole, "spec": pod["spec"]}, version, strict=True)
        assert set(pod) <= {"metadata", "spec"}, name


@every
def test_against_the_fields_of_kuberay(folder: str) -> None:
    for document in rendered(folder):
        if document["kind"] in {"RayCluster", "RayJob"}:
            assert document["apiVersion"] == "ray.io/v1"
            assert set(document) == {"apiVersion", "kind", "metadata", "spec"}
            assert set(document["spec"]) <= (CLUSTER if document["kind"] == "RayCluster" else JOB)
    for cluster in ray_clusters(rendered(folder)):
        assert set(cluster) <= CLUSTER
        assert {"headGroupSpec", "rayVersion", "workerGroupSpecs"} <= set(cluster)
        groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
        for group in groups:
            assert set(group) <= (HEAD if group is groups[0] else WORKERS)
            params = group["rayStartParams"]
            assert all(isinstance(value, str) for value in params.values()), "rayStartParams are texts"
        for group in groups[1:]:
            assert {"groupName", "maxReplicas", "minReplicas", "rayStartParams", "template"} <= set(group)
            assert 0 < group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]


@every
def test_pods_are_confined(folder: str) -> None:
    """What the namespace's label `restricted` asks for; a pod that is not so would be refused."""
    for name, pod in pods(rendered(folder)).items():
        context = pod["spec"]["securityContext"]
        assert context["runAsNonRoot"] is True, name
        assert context["runAsUser"] > 0
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["spec"]["automountServiceAccountToken"] is False
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod["spec"])
        for volume in pod["spec"].get("volumes", []):
            assert "hostPath" not in volume
        for container in containers(pod):
            confined = container["securityContext"]
            assert confined["allowPrivilegeEscalation"] is False
            assert confined["capabilities"] == {"drop": ["ALL"]}
    labels = one(rendered(folder), "Namespace")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


@every
def test_pods_have_requests_limits_and_pinned_images(folder: str) -> None:
    for name, pod in pods(rendered(folder)).items():
        for container in containers(pod):
            for what in ("requests", "limits"):
                assert {"cpu", "memory"} <= set(container["resources"][what]), f"{name}: {what}"
            assert re.fullmatch(r"[\w./-]+:\d+\.\d+[\w.-]*", container["image"]), name


@every
def test_volumes_accounts_and_maps_that_are_named_exist(folder: str) -> None:
    documents = rendered(folder)
    there = {(d["kind"], d["metadata"]["name"]) for d in documents}
    for name, pod in pods(documents).items():
        volumes = {volume["name"] for volume in pod["spec"].get("volumes", [])}
        claims = one(documents, "StatefulSet")["spec"]["volumeClaimTemplates"] if name == "StatefulSet/postgres" else []
        volumes |= {claim["metadata"]["name"] for claim in claims}
        assert {mount["name"] for c in containers(pod) for mount in c.get("volumeMounts", [])} == volumes, name
        assert ("ServiceAccount", pod["spec"]["serviceAccountName"]) in there
        for volume in pod["spec"].get("volumes", []):
            if "configMap" in volume:
                assert ("ConfigMap", volume["configMap"]["name"]) in there
            if "persistentVolumeClaim" in volume:
                assert ("PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"]) in there
    for binding in (d for d in documents if d["kind"] == "RoleBinding"):
        assert (binding["roleRef"]["kind"], binding["roleRef"]["name"]) in there
    assert {d["metadata"].get("namespace", "remedy") for d in documents} == {"remedy"}


def secrets() -> dict[str, set[str]]:
    """The secrets of the example: names and keys; no values."""
    found = {}
    for document in yaml.safe_load_all((DEPLOY / "kubernetes/base/secrets.example.yaml").read_text()):
        kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)
        assert not any(document["stringData"].values()), "an example holds no secret"
        found[document["metadata"]["name"]] = set(document["stringData"])
    return found


@every
def test_secrets_that_are_named_are_in_the_example_and_none_is_rendered(folder: str) -> None:
    known = secrets()
    assert not [d for d in rendered(folder) if d["kind"] == "Secret"]
    for pod in pods(rendered(folder)).values():
        for entry in (e for container in containers(pod) for e in container.get("env", [])):
            if re.search("PASSWORD|TOKEN", entry["name"]):
                key = entry["valueFrom"]["secretKeyRef"]
                assert key["key"] in known[key["name"]]


@every
def test_ray_wants_its_token(folder: str) -> None:
    for cluster in ray_clusters(rendered(folder)):
        assert cluster["authOptions"] == {"mode": "token"}
    for document in (d for d in rendered(folder) if d["kind"] == "RayCluster"):
        # KubeRay takes the Secret that is named like the cluster; the night's submitter reads the same.
        assert secrets()[document["metadata"]["name"]] == {"auth_token"}


@every
def test_workers_know_no_store_and_the_head_takes_no_run(folder: str) -> None:
    for cluster in ray_clusters(rendered(folder)):
        head, *_ = containers(cluster["headGroupSpec"]["template"])
        assert environment(head)["REMEDY_STORAGE"]["value"].endswith("@postgres:5432/optuna")
        assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
        assert cluster["headGroupSpec"]["rayStartParams"]["num-gpus"] == "0"
        for group in cluster["workerGroupSpecs"]:
            for container in containers(group["template"]):
                assert not set(environment(container)) & STORES
                assert "envFrom" not in container
            assert group["template"]["spec"]["enableServiceLinks"] is False
            assert not [v for v in group["template"]["spec"]["volumes"] if "secret" in v]


@every
def test_the_versions_are_those_of_the_constraints(folder: str) -> None:
    version = re.search(r'^version = "(.*)"', (REPOSITORY / "pyproject.toml").read_text(), re.MULTILINE)[1]
    ours = f"remedy:{version}-ray{constraint('ray')}"
    for cluster in ray_clusters(rendered(folder)):
        assert cluster["rayVersion"] == constraint("ray")
    for name, pod in pods(rendered(folder)).items():
        (image,) = {container["image"] for container in containers(pod)}
        assert image == {
            "Deployment/mlflow": f"remedy-mlflow:{constraint('mlflow')}",
            "StatefulSet/postgres": compose()["services"]["postgres"]["image"],
        }.get(name, ours)


# ---------------------------------------------------------------- the network


def allowed(folder: str, kind: str, port: int, pod: dict[str, str]) -> set[str]:
    """Names of the policies that let a pod talk through a port: as receiver (ingress) or sender (egress)."""
    found = set()
    for policy in (d for d in rendered(folder) if d["kind"] == "NetworkPolicy"):
        rules = policy["spec"].get(kind, [])
        if not selects(policy["spec"]["podSelector"], pod):
            continue
        for rule in rules:
            ports = rule.get("ports")
            if ports is None or any(p["port"] <= port <= p.get("endPort", p["port"]) for p in ports):
                found.add(policy["metadata"]["name"])
    return found


def selects(selector: Document, labels: dict[str, str]) -> bool:
    if any(labels.get(key) != value for key, value in selector.get("matchLabels", {}).items()):
        return False
    rules = selector.get("matchExpressions", [])
    assert all(rule["operator"] == "Exists" for rule in rules)
    return all(rule["key"] in labels for rule in rules)


WORKER, HEAD_NODE = {"ray.io/node-type": "worker"}, {"ray.io/node-type": "head"}


@every
def test_nothing_talks_but_what_must(folder: str) -> None:
    deny = one(rendered(folder), "NetworkPolicy", "default-deny")["spec"]
    assert deny == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    for policy in (d["spec"] for d in rendered(folder) if d["kind"] == "NetworkPolicy"):
        for peer in (p for rule in policy.get("ingress", []) for p in rule["from"]):
            assert "ipBlock" not in peer
            assert peer.get("namespaceSelector") != {}, "every namespace may come in"
        assert all("from" in rule for rule in policy.get("ingress", []))
        assert all("to" in rule for rule in policy.get("egress", []))
    sender = {"app": "nightly"}
    # Senders and receivers agree: the head and the night reach the stores, and the night the Jobs API.
    for port, store in ((5432, "postgres"), (5000, "mlflow")):
        takes = one(rendered(folder), "NetworkPolicy", store)["spec"]["ingress"][0]["from"]
        for labels in (HEAD_NODE, sender):
            assert any(selects(peer["podSelector"], labels) for peer in takes)
            assert allowed(folder, "egress", port, labels)
        # A worker is let out to Ray's nodes alone (a rule without ports, "ray"), and no store takes it.
        assert not any(selects(peer["podSelector"], WORKER) for peer in takes)
        assert allowed(folder, "egress", port, WORKER) == {"ray"}
    assert one(rendered(folder), "NetworkPolicy", "ray")["spec"]["egress"] == [
        {"to": [{"podSelector": {"matchExpressions": [{"key": "ray.io/node-type", "operator": "Exists"}]}}]}
    ]
    assert "nightly" in allowed(folder, "egress", 8265, sender)
    assert "dns" in allowed(folder, "egress", 53, WORKER)


@every
def test_services_lead_to_pods_and_ports_that_are_there(folder: str) -> None:
    labels = {name: pod.get("metadata", {}).get("labels", {}) for name, pod in pods(rendered(folder)).items()}
    for service in (d for d in rendered(folder) if d["kind"] == "Service"):
        (name,) = [name for name, had in labels.items() if service["spec"]["selector"].items() <= had.items()]
        (container,) = containers(pods(rendered(folder))[name])
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        for port in service["spec"]["ports"]:
            assert ports[port["targetPort"]] == port["port"]
        assert service["spec"].get("type", "ClusterIP") == "ClusterIP"


def test_people_may_look_but_read_no_secret() -> None:
    for rule in one(rendered("base"), "Role")["rules"]:
        assert "*" not in rule["verbs"] + rule["resources"] + rule["apiGroups"]
        assert not {"secrets", "pods/exec"} & set(rule["resources"])
    assert not [d for d in rendered("base") if d["kind"].startswith("ClusterRole")]


# ---------------------------------------------------------------- the night


def test_the_night() -> None:
    cron = one(rendered("nightly"), "CronJob")["spec"]
    assert re.fullmatch(r"\d+ \d+ \* \* \*", cron["schedule"]), "once a day: the gap is 24 hours"
    gap = 24 * 3600
    assert cron["concurrencyPolicy"] == "Forbid"
    assert cron["timeZone"] == "Etc/UTC"
    assert 0 < cron["startingDeadlineSeconds"] < gap
    job = cron["jobTemplate"]["spec"]
    assert cron["startingDeadlineSeconds"] + job["activeDeadlineSeconds"] < gap
    assert cron["successfulJobsHistoryLimit"] >= 7
    assert cron["failedJobsHistoryLimit"] >= 7
    assert job["backoffLimit"] == 0
    assert job["template"]["spec"]["restartPolicy"] == "Never"


def test_the_night_submits_to_the_cluster_that_is_there() -> None:
    (container,) = pods(rendered("nightly"))["CronJob/remedy-nightly"]["spec"]["containers"]
    told = environment(container)
    cluster = one(rendered("nightly"), "RayCluster")["metadata"]["name"]
    assert told["REMEDY_ADDRESS"]["value"] == f"http://{cluster}-head-svc:8265"
    assert told["RAY_AUTH_MODE"]["value"] == "token"
    assert told["RAY_AUTH_TOKEN"]["valueFrom"]["secretKeyRef"] == {"name": cluster, "key": "auth_token"}
    assert container["command"][:2] == ["remedy-nightly", "once"]
    assert (DEPLOY / "docker" / container["command"][0]).exists()
    folder = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}["sweep"]
    assert container["command"][2] == f"{folder}/sweep.yaml"


@pytest.mark.parametrize("path", ["sweep.yaml", "kubernetes/nightly/sweep.yaml"])
def test_sweeps_name_trainings_that_are_in_the_image(path: str) -> None:
    sweep = yaml.safe_load((DEPLOY / path).read_text())
    assert set(sweep) == {"sweep", "trainings", "budget", "workers"}
    for training in sweep["trainings"]:
        file, function = training["target"].rsplit(":", 1)
        # The image holds the repository's examples/ and deploy/ in /opt/remedy.
        place = (REPOSITORY / file.removeprefix("/opt/remedy/")) if file.startswith("/") else (DEPLOY / file)
        assert f"def {function}(" in place.read_text()
    assert "COPY examples /opt/remedy/examples" in (DEPLOY / "docker/remedy.Dockerfile").read_text()


# ---------------------------------------------------------------- a study of its own, and the overlays


@pytest.mark.parametrize("folder", ["study", "overlays/queue"])
def test_a_study_brings_the_same_cluster_and_takes_it_away(folder: str) -> None:
    job = one(rendered(folder), "RayJob")["spec"]
    assert not [d for d in rendered(folder) if d["kind"] == "RayCluster"]
    assert job["rayClusterSpec"] == one(rendered("cluster"), "RayCluster")["spec"]
    assert job["submissionMode"] == "HTTPMode"
    assert job["backoffLimit"] > 0
    assert job["shutdownAfterJobFinishes"] is True
    assert job["activeDeadlineSeconds"] > 0
    words = job["entrypoint"].split()
    assert (DEPLOY / "docker" / words[2]).exists()
    assert (REPOSITORY / words[4].removeprefix("/opt/remedy/").rsplit(":", 1)[0]).exists()


def test_gpus_are_for_workers_alone() -> None:
    cluster = one(rendered("overlays/gpu"), "RayCluster")["spec"]
    (worker,) = containers(cluster["workerGroupSpecs"][0]["template"])
    for what in ("requests", "limits"):
        assert worker["resources"][what]["nvidia.com/gpu"] == "1"
        assert {"cpu", "memory"} <= set(worker["resources"][what])
    assert cluster["workerGroupSpecs"][0]["rayStartParams"]["num-gpus"] == "1"
    others = [
        c for name, pod in pods(rendered("overlays/gpu")).items() if "worker" not in name for c in containers(pod)
    ]
    assert not [c for c in others if "nvidia.com/gpu" in c["resources"]["limits"]]


def test_the_queue_is_named_and_admits() -> None:
    job = one(rendered("overlays/queue"), "RayJob")
    queue = one(rendered("overlays/queue"), "LocalQueue")["metadata"]["name"]
    assert job["metadata"]["labels"] == {"kueue.x-k8s.io/queue-name": queue}
    assert job["spec"]["suspend"] is True


def test_the_checks_check() -> None:
    """A field in the wrong place is seen by the schema that the tests above rely on."""
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "x"},
        "spec": {"containers": [{"name": "x", "imagee": "y"}]},
    }
    with warnings.catch_warnings(), pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(pod, kubernetes_validate.latest_version(), strict=True)
