"""Step *preflight*: proof, before anything is touched, that the run can succeed; red means nothing is frozen or cut."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from blocks.handles import open_cluster, open_or_init_vault, open_store
from kube.cluster import Cluster
from kube.hold_plan import HoldPlan, choose, plan_hold
from kube.home import HOME
from kube.hooks import plan_hooks
from kube.rights import Right, missing_rights
from kube.runs import LEASE
from providers.snapshotters.csi import open_snapshotter
from refloat.application import Application
from refloat.duration import format_duration
from refloat.errors import ConfigError, ConsistencyTooLow, Forbidden, NotReady, RefloatError, Unsupported
from refloat.inventory import Inventory
from refloat.policy import ProtectionPolicy
from refloat.recovery_point import RecoveryPoint
from refloat.registry import open_quiescers
from refloat.target import ClusterRef
from refloat.values import Consistency
from tasks.step import note, step, warn

GROUP = "VolumeGroupSnapshot.groupsnapshot.storage.k8s.io"


@dataclass(frozen=True)
class Cleared:
    """A green preflight: how volumes will be cut, and who will be held meanwhile."""

    group: bool
    hold: HoldPlan
    is_vault_new: bool


@step("preflight")
def preflight(application: Application, inventory: Inventory, policy: ProtectionPolicy, cluster: ClusterRef) -> Cleared:
    """Check rights, claims, snapshot classes, hooks, and the vault; create the vault where there is none.

    All checks run, the vault's last; the first failure is raised and carries the others as notes.

    Raises:
        RefloatError: The class that names what is red (``Forbidden``, ``NotReady``, ``Unsupported``, ``WrongKey``, …).
    """
    target = open_cluster(cluster)
    group, plan = False, HoldPlan()

    def snapshots() -> str:
        nonlocal group
        group, text = check_snapshots(target, inventory)
        return text

    def hold() -> str:
        nonlocal plan
        plan = plan_hold(target, application, inventory, group=group)
        return check_label(application, policy, plan, label_of(inventory, plan, group=group))

    run_checks(
        {
            "policy": lambda: check_policy(application, policy),
            "claims": lambda: check_claims(inventory),
            "snapshots": snapshots,
            "rights": lambda: check_rights(target, application, inventory, group=group),
            "hooks": lambda: f"{len(plan_hooks(application, inventory))} to run",
            "hold": hold,
            "store": lambda: check_store(target, policy),
        }
    )
    vault, created = open_or_init_vault(policy.vault, target)
    note("preflight", f"vault {policy.vault.url} {'created, encrypted' if created else 'opened, encrypted'}")
    vault.close()
    return Cleared(group, plan, created)


def run_checks(checks: dict[str, Callable[[], str]]) -> None:
    """Run every check; tell each result; raise the first failure with the others as notes."""
    failures: list[RefloatError] = []
    for name, check in checks.items():
        try:
            note("preflight", f"{name}: {check()}")
        except RefloatError as red:
            warn("preflight", f"{name}: {red.message}")
            failures.append(red)
    if failures:
        for other in failures[1:]:
            failures[0].add_note(f"also red: {other.code}: {other.message}")
        raise failures[0]


def check_policy(application: Application, policy: ProtectionPolicy) -> str:
    """The policy is meant for this application."""
    if policy.application not in (None, application.name):
        raise ConfigError(f"policy {policy.name} is for application {policy.application}, not {application.name}")
    return f"RPO {format_duration(policy.objectives.rpo)}, RTO {format_duration(policy.objectives.rto)}"


def check_claims(inventory: Inventory) -> str:
    """Every claim is bound to a CSI volume with a file system."""
    for volume in inventory.volumes:
        if volume.phase != "Bound":
            raise NotReady(
                f"claim {volume.name} is {volume.phase}, not Bound: there is nothing to protect in it yet",
                guidance="Wait until a pod uses the claim, or exclude it from the application.",
                claim=volume.name,
            )
        if volume.mode != "Filesystem":
            raise Unsupported(f"claim {volume.name} is a raw {volume.mode} volume; only file systems are protected")
        if not volume.handle:
            raise Unsupported(f"claim {volume.name} lies on {volume.driver}, which is no CSI driver: it cannot be cut")
    return f"{len(inventory.volumes)} bound"


def check_rights(cluster: Cluster, application: Application, inventory: Inventory, *, group: bool) -> str:
    """The identity in use may do everything the run will ask for."""
    needed = needed_rights(application, inventory, group=group)
    missing = missing_rights(cluster, needed)
    if missing:
        raise Forbidden("these rights are missing: " + "; ".join(str(right) for right in missing))
    return f"{len(needed)} held"


def needed_rights(application: Application, inventory: Inventory, *, group: bool) -> list[Right]:
    """What protecting this inventory asks of the API server; ``group``: its volumes are cut as one group."""
    snapshot, content = "VolumeSnapshot.snapshot.storage.k8s.io", "VolumeSnapshotContent.snapshot.storage.k8s.io"
    rights = [Right(verb, LEASE, HOME) for verb in ("create", "get", "patch", "list", "delete")]
    if inventory.volumes:
        rights += [Right(verb, snapshot, home) for verb in ("create", "get", "list", "delete") for home in (HOME,)]
        rights += [Right(verb, content) for verb in ("create", "get", "list", "delete")]
        for kind in ("PersistentVolumeClaim", "Secret", "Job.batch"):
            rights += [Right(verb, kind, HOME) for verb in ("create", "get", "delete")]
        rights += [Right("get", "Pod", HOME, subresource="log"), Right("list", "Pod", HOME)]
        rights += [Right("patch", "Job.batch", HOME), *(Right(verb, "PersistentVolume") for verb in ("get", "patch"))]
        sought = ("PersistentVolume", "PersistentVolumeClaim", snapshot)  # by the sweep, wherever they lie
        rights += [Right("list", kind) for kind in sought]
        for namespace in sorted({volume.namespace for volume in inventory.volumes}):
            rights += [Right(verb, snapshot, namespace) for verb in ("create", "get", "list", "delete")]
            if group:
                rights += [Right(verb, GROUP, namespace) for verb in ("create", "get", "list", "delete")]
                rights += [Right("patch", kind, namespace) for kind in ("PersistentVolumeClaim", snapshot)]
    held = {choice.pod.namespace for choice in choose(application, inventory, open_quiescers()) if choice.quiescer}
    for namespace in sorted({hook.pod.namespace for hook in plan_hooks(application, inventory)} | held):
        # Kubernetes 1.35 and later ask for create, earlier ones for get, when the connection is a WebSocket
        rights += [Right(verb, "Pod", namespace, subresource="exec") for verb in ("create", "get")]
    return rights


def check_snapshots(cluster: Cluster, inventory: Inventory) -> tuple[bool, str]:
    """Snapshot classes exist; returns whether a group is cut."""
    if not inventory.volumes:
        return False, "no volumes"
    found = open_snapshotter(cluster).capabilities(inventory.volumes)
    group = found.group and len(inventory.volumes) > 1
    return group, f"class {found.group_class if group else found.snapshot_class}, {'group' if group else 'each volume'}"


def label_of(inventory: Inventory, plan: HoldPlan, *, group: bool) -> Consistency:
    """The best label this run can reach; the certificate says later what it did reach."""
    if plan.is_proof:
        return Consistency.APPLICATION
    if len(inventory.volumes) <= 1:
        return Consistency.CRASH
    return Consistency.GROUP_CRASH if group else Consistency.INCONSISTENT


def check_label(application: Application, policy: ProtectionPolicy, plan: HoldPlan, label: Consistency) -> str:
    """The best label is one that the policy accepts, or the document allows an inconsistent point."""
    is_allowed = label is Consistency.INCONSISTENT and application.hold.allow_inconsistent
    if label < policy.accept and not is_allowed:
        why = [each.reason for each in plan.unheld] or ["no pod with a volume runs, so nothing can be held"]
        if label is Consistency.INCONSISTENT:
            why.insert(0, "the volumes cannot be cut at one instant (no group snapshot class for all of them)")
        raise ConsistencyTooLow(
            f"the point would be {label.value} at best, the policy accepts {policy.accept.value} at least: "
            + "; ".join(dict.fromkeys(why))
        )
    return f"{plan}; {label.value} at best"


def last_cut(application: Application, plan: HoldPlan, previous: RecoveryPoint | None) -> None:
    """Preflight's last question, once the vault is open: what the last cut took, beside the hold's budget.

    A cut that takes longer is made, after the release: a warning, not a refusal, for only a new cut can be quicker.
    """
    seen = previous.certificate if previous else None
    if not plan.parts or seen is None:
        return
    budget = application.hold.soft_budget
    took = seen.cut_seen_at - seen.cut_asked_at if seen.cut_seen_at and seen.cut_asked_at else None
    if seen.late or (took is not None and took >= budget):
        warn(
            "preflight",
            f"the last cut came later than the {format_duration(budget)} of a hold, and this one may again come after "
            "the release; raise hold.softBudget, if the application may stand still that long",
        )
    elif took is not None:
        note("preflight", f"last cut: {took.total_seconds():.1f} s of the hold's {format_duration(budget)}")


def check_store(cluster: Cluster, policy: ProtectionPolicy) -> str:
    """The store can be reached from here, takes conditional writes, and movers will reach it too."""
    store = open_store(policy.vault.url)
    try:
        found = store.capabilities()
        if found.is_local and not cluster.is_practice_range:
            raise ConfigError(
                f"{policy.vault.url} is reached from this machine only: movers in the cluster cannot write to it",
                guidance="Give --vault s3://bucket/prefix, and an AWS_ENDPOINT_URL that pods reach too.",
            )
        if not found.conditional_create:
            raise Unsupported(f"{policy.vault.url} ignores conditional writes: two runs could overwrite each other")
    finally:
        store.close()
    return "reachable"
