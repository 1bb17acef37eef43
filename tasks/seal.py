"""Step *seal*: copies and manifests → the recovery point, written last and once; it exists only from then on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from blocks.handles import open_cluster, open_existing_vault
from kube.held_part import AddedPath
from refloat import __version__
from refloat.certificate import Certificate
from refloat.clock import now
from refloat.errors import IntegrityError
from refloat.export import Export
from refloat.inventory import Inventory
from refloat.policy import ProtectionPolicy
from refloat.recovery_point import CataloguedPoint, HookRecord, RecoveryPoint, VolumeCopy, new_id
from refloat.target import ClusterRef
from tasks.step import note, step
from vault.catalogue import seal as seal_in
from vault.grafting import graft
from vault.repository import OpenVault


@dataclass(frozen=True)
class Facts:
    """What the run knows about the point besides its data."""

    run: str
    started_at: datetime
    exported_at: datetime
    certificate: Certificate
    hooks: Sequence[HookRecord] = ()
    warnings: Sequence[str] = field(default=())
    added: Mapping[AddedPath, bytes] = field(default_factory=dict)


@step("seal")
def seal(
    inventory: Inventory,
    export: Export,
    copies: Sequence[VolumeCopy],
    facts: Facts,
    policy: ProtectionPolicy,
    cluster: ClusterRef,
) -> CataloguedPoint:
    """Write the one snapshot record that makes the point reachable.

    Raises:
        IntegrityError: A volume of the inventory has no copy, an undeclared file is missing from one, or the vault
            does not hold what a mover said it stored; nothing is sealed.
    """
    target = open_cluster(cluster)
    vault = open_existing_vault(policy.vault, target)
    try:
        whole = [with_added(vault, copy, facts) for copy in copies]
        point = describe(inventory, export, whole, facts, policy, target.name)
        sealed = seal_in(vault, point, export.manifests)
    finally:
        vault.close()
    note("seal", f"{point.id} {point.consistency.value}, {len(point.objects)} objects, {len(point.volumes)} volumes")
    return sealed


def with_added(vault: OpenVault, copy: VolumeCopy, facts: Facts) -> VolumeCopy:
    """The copy of a volume with the files that its engine gave for it.

    Raises:
        IntegrityError: The copy has no folder for one of them.
    """
    files = {
        place.path: text for place, text in facts.added.items() if place.volume == f"{copy.namespace}/{copy.claim}"
    }
    if not files:
        return copy
    return copy.model_copy(
        update={
            "tree": graft(vault, copy.tree, files, at=facts.certificate.cut_seen_at or copy.cut_at, top=copy.top),
            "added": tuple(sorted(files)),
            "files": copy.files + len(files),
            "data_bytes": copy.data_bytes + sum(map(len, files.values())),
        }
    )


def describe(
    inventory: Inventory,
    export: Export,
    copies: Sequence[VolumeCopy],
    facts: Facts,
    policy: ProtectionPolicy,
    cluster: str,
) -> RecoveryPoint:
    """The point's descriptor; refuses one that is not complete."""
    missing = {v.name for v in inventory.volumes} - {f"{c.namespace}/{c.claim}" for c in copies}
    if missing:
        raise IntegrityError(f"no copy of {', '.join(sorted(missing))}: a point is sealed complete or not at all")
    for copy in copies:
        if copy.unreadable:
            raise IntegrityError(
                f"{copy.namespace}/{copy.claim}: {len(copy.unreadable)} files could not be read, "
                f"the first is {copy.unreadable[0]}; the point would be partial",
                guidance="Look at the volume: a snapshot does not change while it is read. Nothing was sealed.",
            )
    cuts = [copy.cut_at for copy in copies] or [facts.exported_at]
    return RecoveryPoint(
        id=new_id(),
        application=inventory.application,
        cluster=cluster,
        run=facts.run,
        started_at=facts.started_at,
        cut_at=min(cuts),
        sealed_at=now(),
        consistency=facts.certificate.verdict,
        cut_method="none" if not copies else "group-snapshot" if facts.certificate.group else "volume-snapshots",
        skew=max(cuts) - min(cuts) if copies else timedelta(0),
        objects=export.copies,
        volumes=tuple(copies),
        hooks=tuple(facts.hooks),
        certificate=facts.certificate,
        exceptions=tuple(exception.model_dump(mode="json") for exception in policy.exceptions),
        warnings=tuple(facts.warnings),
        refloat_version=__version__,
    )
