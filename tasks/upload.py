"""Step *upload*: one cut volume → its copy in the vault, carried by a mover Job in refloat's own namespace."""

from __future__ import annotations

from datetime import timedelta
from typing import Literal

from blocks.handles import mover_image, mover_secrets, open_cluster
from kube.jobs import run_mover
from kube.snapshots import wait_ready
from providers.snapshotters.csi import open_snapshotter
from refloat.application import APPLICATION_LABEL
from refloat.errors import RefloatError
from refloat.policy import VaultLocation
from refloat.ports.volume_snapshotter import VolumeSnapshot
from refloat.recovery_point import VOLUMES, VolumeCopy
from refloat.target import ClusterRef
from refloat.transfer import MoverResult, MoverSpec
from tasks.step import MOVER_LIMIT, moved, note, step, warn

READY_LIMIT = timedelta(hours=1)


@step("upload", retries=1)
def upload(
    snapshot: VolumeSnapshot,
    application: str,
    location: VaultLocation,
    cluster: ClusterRef,
    *,
    run: str,
    parent: VolumeCopy | None = None,
    chunks: Literal["fixed", "content-defined"] = "fixed",
) -> VolumeCopy:
    """Expose the snapshot, let a mover archive it, withdraw it again.

    ``parent`` is the volume's copy in the previous point: its unchanged files are not read again. ``chunks``: how its
    large files are cut.

    Raises:
        SnapshotFailed: The snapshot never became ready.
        TransferFailed: The mover ended without a result.
        RefloatError: What the mover reported, as its own class.
    """
    target = open_cluster(cluster)
    snapshotter = open_snapshotter(target)
    labels = {APPLICATION_LABEL: application}
    ready = wait_ready(snapshotter, snapshot, timeout=READY_LIMIT)
    exposure = snapshotter.expose(ready, run=run, labels=labels)
    try:
        result = run_mover(
            target,
            MoverSpec(
                action="archive",
                run=run,
                volume=snapshot.volume.name,
                vault_url=location.url,
                parent=parent.tree if parent else None,
                chunk_bytes=parent.chunk_bytes if parent else None,
                chunks=chunks,
            ),
            claim=exposure.claim,
            image=mover_image(),
            secret_env=mover_secrets(location, target),
            labels=labels,
            timeout=MOVER_LIMIT,
            on_progress=lambda progress: moved("upload", progress),
        )
    except BaseException as first:
        try:
            snapshotter.withdraw(exposure)
        except RefloatError as second:  # the sweep finds it; the first error is the one to tell
            first.add_note(f"withdrawing the exposed snapshot failed as well: {second.message}")
        raise
    snapshotter.withdraw(exposure)
    result.raise_if_failed()
    return copy_of(ready, result).model_copy(update={"chunks": chunks})


def copy_of(snapshot: VolumeSnapshot, result: MoverResult) -> VolumeCopy:
    """The facts of a volume's copy, as the descriptor keeps them."""
    volume = snapshot.volume
    if result.unreadable_count:
        warn("upload", f"{volume.name}: {result.unreadable_count} files could not be read: {result.unreadable[0]} …")
    note("upload", f"{volume.name}: {result.data_bytes} bytes in {result.files} files, {result.added_bytes} new")
    if result.tree is None or snapshot.cut_at is None:
        raise AssertionError("a mover that succeeded names a tree, and a ready snapshot was cut")
    return VolumeCopy(
        namespace=volume.namespace,
        claim=volume.claim,
        tree=result.tree,
        top=result.top,
        path=f"{VOLUMES}/{volume.namespace}/{volume.claim}",
        storage_class=volume.storage_class,
        driver=volume.driver,
        requested_bytes=volume.requested_bytes,
        access_modes=volume.access_modes,
        files=result.files,
        data_bytes=result.data_bytes,
        added_bytes=result.added_bytes,
        chunk_bytes=result.chunk_bytes,
        unreadable=result.unreadable,
        cut_at=snapshot.cut_at,
        ready_at=snapshot.ready_at,
    )
