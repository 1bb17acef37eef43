"""Discovery: what belongs to an application right now, and why, read from one cluster."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from kube.cluster import Cluster
from kube.kinds import Kind
from kube.membership import BINDING, CLAIM, Graph, closure
from kube.quantity import to_bytes
from kube.references import pod_references
from refloat.application import RUN_LABEL, Application
from refloat.errors import EmptySelection
from refloat.inventory import Found, Inventory, Pod, Reason, Volume
from refloat.recovery_point import ObjectRef

Object = Mapping[str, Any]
SIDE_BY_SIDE = 8
MADE_BY_CLUSTER = {
    "Event", "Event.events.k8s.io", "Endpoints", "EndpointSlice.discovery.k8s.io", "Lease.coordination.k8s.io",
    "ControllerRevision.apps", "CSIStorageCapacity.storage.k8s.io", "PodMetrics.metrics.k8s.io",
    "VolumeSnapshot.snapshot.storage.k8s.io", "VolumeGroupSnapshot.groupsnapshot.storage.k8s.io",
}  # fmt: skip
"""Kinds that controllers or kubelets write themselves, and volume snapshots, which are scratch: never carried."""


def discover(cluster: Cluster, application: Application) -> Inventory:
    """Everything that belongs to the application.

    Raises:
        ObjectMissing: A namespace does not exist.
        EmptySelection: The rules select nothing.
        Forbidden: A kind may not be listed: fewer objects are never passed off as all.
    """
    namespaces = {name: cluster.get("Namespace", name) for name in application.namespaces}
    graph = Graph(obj for obj in read_all(cluster, application.namespaces) if not is_clusters_own(obj))
    belonging, excluded, missing = closure(graph, application)
    if not [found for found in belonging if found.ref.name != "default" or found.ref.kind != "ServiceAccount"]:
        rules = "; ".join(f"namespace {m.namespace}, selector {m.selector or '(all)'}" for m in application.members)
        raise EmptySelection(f"application {application.name} selects nothing: {rules}", application=application.name)
    claims = [found for found in belonging if found.ref.kind == CLAIM]
    volumes = volumes_of(cluster, claims)
    own = [namespace_found(obj) for obj in namespaces.values()]
    return Inventory(
        application=application.name,
        objects=tuple(own + belonging),
        volumes=tuple(volumes),
        pods=tuple(pods_of(belonging)),
        shared=tuple(shared(belonging, volumes)),
        excluded=tuple(excluded),
        warnings=tuple(warnings(graph, belonging, excluded, missing)),
    )


def read_all(cluster: Cluster, namespaces: Sequence[str]) -> list[Object]:
    """Every object of every listable namespaced kind, in parallel."""
    kinds = [k for k in cluster.kinds() if k.namespaced and "list" in k.verbs and k.name not in MADE_BY_CLUSTER]

    def read(entry: tuple[Kind, str]) -> list[Object]:
        return list(cluster.list(entry[0].name, entry[1]))

    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        lists = pool.map(read, [(kind, namespace) for namespace in namespaces for kind in kinds])
        return [obj for each in lists for obj in each]


def is_clusters_own(obj: Object) -> bool:
    """Objects every namespace gets by itself, tokens, what refloat made, and what is already being deleted."""
    meta, kind = obj["metadata"], obj["kind"]
    return (
        RUN_LABEL in (meta.get("labels") or {})
        or "deletionTimestamp" in meta
        or (kind == "ConfigMap" and meta["name"] == "kube-root-ca.crt")
        or (kind == "Secret" and obj.get("type") == "kubernetes.io/service-account-token")
        or "kubernetes.io/config.mirror" in (meta.get("annotations") or {})
    )


def namespace_found(obj: Object) -> Found:
    """The Namespace object itself: its labels and annotations come along."""
    return Found(ObjectRef(kind="Namespace", name=obj["metadata"]["name"]), Reason("namespace of the application"), obj)


def volumes_of(cluster: Cluster, claims: Sequence[Found]) -> list[Volume]:
    """The claims with the storage behind them."""

    def read(found: Found) -> Volume:
        name = (found.manifest.get("spec") or {}).get("volumeName") or ""
        return volume_of(found, cluster.find("PersistentVolume", name) if name else None)

    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        return list(pool.map(read, claims))


def volume_of(claim: Found, volume: Object | None) -> Volume:
    """One claim and its PersistentVolume; a source that is no CSI gives its own name as driver and no handle."""
    spec, meta = claim.manifest["spec"], claim.manifest["metadata"]
    behind = (volume or {}).get("spec") or {}
    csi = behind.get("csi") or {}
    shape = {"capacity", "accessModes", "claimRef", "persistentVolumeReclaimPolicy", "storageClassName", "volumeMode"}
    source = next((key for key in behind if key not in shape | {"nodeAffinity", "mountOptions"}), "none")
    return Volume(
        namespace=claim.ref.namespace,
        claim=claim.ref.name,
        uid=meta["uid"],
        phase=(claim.manifest.get("status") or {}).get("phase", "Pending"),
        volume_name=spec.get("volumeName") or "",
        driver=csi.get("driver", source),
        handle=csi.get("volumeHandle", ""),
        storage_class=spec.get("storageClassName"),
        requested_bytes=to_bytes(((spec.get("resources") or {}).get("requests") or {}).get("storage", "0")),
        access_modes=tuple(spec.get("accessModes") or ()),
        mode=spec.get("volumeMode") or "Filesystem",
        labels=dict(meta.get("labels") or {}),
    )


def pods_of(belonging: Iterable[Found]) -> list[Pod]:
    """The application's pods that have not ended."""
    return [
        Pod(
            namespace=found.ref.namespace,
            name=found.ref.name,
            uid=found.manifest["metadata"]["uid"],
            phase=(found.manifest.get("status") or {}).get("phase", "Unknown"),
            labels=dict(found.manifest["metadata"].get("labels") or {}),
            annotations=dict(found.manifest["metadata"].get("annotations") or {}),
            containers=tuple(each["name"] for each in found.manifest["spec"]["containers"]),
            images=tuple(each.get("image", "") for each in found.manifest["spec"]["containers"]),
            claims=tuple(
                volume["persistentVolumeClaim"]["claimName"]
                for volume in found.manifest["spec"].get("volumes") or []
                if "persistentVolumeClaim" in volume
            ),
        )
        for found in belonging
        if found.ref.kind == "Pod" and (found.manifest.get("status") or {}).get("phase") not in ("Succeeded", "Failed")
    ]


def shared(belonging: Sequence[Found], volumes: Sequence[Volume]) -> list[ObjectRef]:
    """Cluster-scoped objects the application uses and others may too."""
    found = {ObjectRef(kind="StorageClass.storage.k8s.io", name=v.storage_class) for v in volumes if v.storage_class}
    for each in belonging:
        if each.ref.kind == BINDING and each.manifest["roleRef"]["kind"] == "ClusterRole":
            name = each.manifest["roleRef"]["name"]
            found.add(ObjectRef(kind="ClusterRole.rbac.authorization.k8s.io", name=name))
    return sorted(found, key=str)


def warnings(
    graph: Graph, belonging: Sequence[Found], excluded: Sequence[Found], missing: Sequence[tuple[ObjectRef, Reason]]
) -> list[str]:
    """For people: dangling references, volumes left out, pods that are not running."""
    texts = []
    for ref, reason in missing:
        if ref.kind == "ServiceAccount" and ref.name == "default":
            continue
        optional = reason.source is not None and is_optional(graph, ref, reason.source)
        texts.append(f"{reason} refers to {ref}, which does not exist{' (optional)' if optional else ''}")
    texts += [f"claim {f.ref.namespace}/{f.ref.name} is excluded: its data is not protected" for f in excluded
              if f.ref.kind == CLAIM]  # fmt: skip
    for pod in pods_of(belonging):
        if pod.phase != "Running":
            texts.append(f"pod {pod.namespace}/{pod.name} is {pod.phase}, not Running")
    return sorted(set(texts))


def is_optional(graph: Graph, ref: ObjectRef, source: ObjectRef) -> bool:
    """Whether the source says it can live without the object."""
    spec = graph.objects[source].get("spec") or {}
    return any(name == ref.name and optional for _, name, _, optional in pod_references(spec))
