"""The mover Job: manifests of one mover's Job and Secret, with no more than its work needs.

Pod Security `baseline` (https://kubernetes.io/docs/concepts/security/pod-security-standards/) admits every capability
added here; it does not admit DAC_READ_SEARCH, so reading files of any owner takes DAC_OVERRIDE on a read-only mount.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from kube.home import HOME, SERVICE_ACCOUNT, labels_in_run, name_in_run
from refloat.application import LABEL_PREFIX
from refloat.transfer import MoverSpec

JOB, SECRET = "Job.batch", "Secret"
CONTAINER = "mover"
VOLUME_PATH = "/volume"
CODE_PATH = "/app"
"""Where the mover image holds the code."""
RESULT_PATH = "/dev/termination-log"
KEPT_FOR = timedelta(hours=1)
"""A Job that nobody removed goes by itself so long after its end."""
STOPS_WITHIN = timedelta(seconds=10)
MEMORY_LIMIT = "2Gi"
CAPABILITIES: Mapping[str, tuple[str, ...]] = {
    "archive": ("DAC_OVERRIDE",),
    "extract": ("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "MKNOD", "SETFCAP"),
}
"""Beyond none: read files of any owner; give files any owner, mode, device number and file capability."""
Object = dict[str, Any]


def name_of_job(spec: MoverSpec) -> str:
    """The name of Job and Secret: the same at every try of one action on one volume in one run."""
    return name_in_run(spec.run, spec.action, spec.volume)


def job_of(spec: MoverSpec, *, claim: str, image: str, labels: Mapping[str, str], timeout: timedelta) -> Object:
    """The Job, suspended: it starts when its Secret is there."""
    marked = labels_in_run(spec.run, labels)
    about = {"name": name_of_job(spec), "namespace": HOME, "labels": marked}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {**about, "annotations": {f"{LABEL_PREFIX}/volume": spec.volume}},
        "spec": {
            "suspend": True,
            "backoffLimit": 0,
            "completions": 1,
            "parallelism": 1,
            "activeDeadlineSeconds": max(1, int(timeout.total_seconds())),
            "ttlSecondsAfterFinished": int(KEPT_FOR.total_seconds()),
            "template": {
                "metadata": {
                    "labels": marked,
                    "annotations": {"cluster-autoscaler.kubernetes.io/safe-to-evict": "false"},
                },
                "spec": pod_spec(spec, claim=claim, image=image),
            },
        },
    }


def pod_spec(spec: MoverSpec, *, claim: str, image: str) -> Object:
    """The pod: one container, no token, nothing of the node, the volume writable only for extraction."""
    reads = spec.action == "archive"
    return {
        "serviceAccountName": SERVICE_ACCOUNT,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": int(STOPS_WITHIN.total_seconds()),
        "securityContext": {"runAsUser": 0, "runAsGroup": 0, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [
            {
                "name": CONTAINER,
                "image": image,
                "imagePullPolicy": "IfNotPresent",
                "command": command_of(spec),
                "workingDir": CODE_PATH,
                "envFrom": [{"secretRef": {"name": name_of_job(spec)}}],
                "resources": {
                    "requests": {"cpu": "100m", "memory": "256Mi"},
                    "limits": {"memory": MEMORY_LIMIT},
                },
                "securityContext": {
                    "allowPrivilegeEscalation": False,
                    "readOnlyRootFilesystem": True,
                    "capabilities": {"drop": ["ALL"], "add": list(CAPABILITIES[spec.action])},
                },
                "terminationMessagePath": RESULT_PATH,
                "terminationMessagePolicy": "File",
                "volumeMounts": [
                    {"name": "volume", "mountPath": VOLUME_PATH, "readOnly": reads},
                    {"name": "scratch", "mountPath": "/tmp"},
                ],
            }
        ],
        "volumes": [
            {"name": "volume", "persistentVolumeClaim": {"claimName": claim, "readOnly": reads}},
            {"name": "scratch", "emptyDir": {}},
        ],
    }


def command_of(spec: MoverSpec) -> list[str]:
    """The mover's command line; it holds no secret."""
    words = ["--spec", spec.model_dump_json(), "--path", VOLUME_PATH, "--result", RESULT_PATH]
    return ["python3", "-m", "vault", *words]


def secret_of(job: Mapping[str, Any], environment: Mapping[str, str]) -> Object:
    """The mover's environment, owned by its Job: it goes with it even if nobody is left to remove it."""
    meta = job["metadata"]
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": meta["name"], "uid": meta["uid"]}
    about = {"name": meta["name"], "namespace": HOME, "labels": meta["labels"], "ownerReferences": [owner]}
    data = {name: base64.b64encode(value.encode()).decode() for name, value in environment.items()}
    return {"apiVersion": "v1", "kind": SECRET, "type": "Opaque", "immutable": True, "metadata": about, "data": data}
