"""A Kubernetes CronJob that runs a sweep each night."""

from __future__ import annotations

import re
import shlex

import yaml

from remedy.commands.nightly.job import LONGEST, NightJob

_DEADLINE = 3600


def image() -> str:
    """Return the tag of the image that deploy/ builds for this version."""
    from importlib.metadata import version

    return f"remedy:{version('remedy')}-ray{version('ray')}"


def manifest(job: NightJob, image: str, home: str | None) -> str:
    """Return the CronJob; `home` is a folder of the container (None: as its image says)."""
    name = re.sub(r"[^a-z0-9-]+", "-", job.unit.lower()).strip("-")[:52].strip("-")
    sweep = shlex.quote(str(job.sweep))
    # Whatever became of the night, the report says so, and its exit code is the job's.
    run = f"remedy nightly run {sweep}; remedy nightly report {sweep}"
    secret = [
        {"name": variable, "valueFrom": {"secretKeyRef": {"name": "remedy", "key": variable}}}
        for variable in job.needed
    ]
    container = {
        "name": "nightly",
        "image": image,
        "command": ["/bin/sh", "-c", run],
        "workingDir": str(job.sweep.parent),
        "env": [*([{"name": "REMEDY_HOME", "value": home}] if home else []), *secret],
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        "resources": {"requests": {"cpu": "500m", "memory": "2Gi"}, "limits": {"cpu": "2", "memory": "4Gi"}},
    }
    pod = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "securityContext": {"runAsNonRoot": True, "runAsUser": 1000, "runAsGroup": 1000, "fsGroup": 1000,
                            "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container],
    }  # fmt: skip
    written = {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": {"name": name, "labels": {"app": "nightly", "sweep": job.name.rstrip("._-")}},
        "spec": {
            "schedule": f"{job.minute} {job.hour} * * *",
            "timeZone": job.zone or "Etc/UTC",
            "concurrencyPolicy": "Forbid",
            "startingDeadlineSeconds": _DEADLINE,
            "successfulJobsHistoryLimit": 14,
            "failedJobsHistoryLimit": 14,
            "jobTemplate": {
                "spec": {
                    "backoffLimit": 0,
                    "activeDeadlineSeconds": LONGEST,
                    "template": {"metadata": {"labels": {"app": "nightly"}}, "spec": pod},
                }
            },
        },
    }
    said = f"# The sweep file {job.sweep} and its trainings have to be at that path in the image.\n"
    if not job.needed:
        said += "# Without REMEDY_STORAGE each night would be the first: set it here, and it is taken from a secret.\n"
    else:
        said += "".join(f"# {variable} comes from the secret `remedy`, key {variable}.\n" for variable in job.needed)
    return said + "# next: save it, then kubectl apply -f FILE\n" + yaml.safe_dump(written, sort_keys=False)
