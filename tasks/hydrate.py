"""Step *hydrate*: one volume of the plan → its claim filled from the vault and bound, before anything uses it."""

from __future__ import annotations

from blocks.handles import mover_image, mover_secrets, open_cluster
from kube.handover import hydrate_claim
from kube.jobs import run_mover
from kube.rewriting import rewrite
from refloat.application import APPLICATION_LABEL
from refloat.plan import Planned, VolumeStep
from refloat.policy import VaultLocation
from refloat.target import ClusterRef
from refloat.transfer import MoverResult, MoverSpec
from tasks.step import MOVER_LIMIT, moved, note, step


@step("hydrate", retries=1)
def hydrate(
    volume: VolumeStep,
    planned: Planned,
    location: VaultLocation,
    cluster: ClusterRef,
    *,
    run: str,
) -> int:
    """Fill a claim in refloat's own namespace and hand its volume over to the application's claim; returns bytes.

    Idempotent on (point, claim): a re-run finishes what a broken-off one began.

    Raises:
        ObjectExists: A claim of that name exists and is not this recovery's.
        RefloatError: What the mover reported, as its own class.
    """
    target, plan = open_cluster(cluster), planned.plan
    labels = {APPLICATION_LABEL: plan.application}
    name = f"{volume.namespace}/{volume.claim}"
    spec = MoverSpec(action="extract", run=run, volume=name, vault_url=location.url, tree=volume.tree, top=volume.top)

    def extract(claim: str) -> MoverResult:
        result = run_mover(
            target,
            spec,
            claim=claim,
            image=mover_image(),
            secret_env=mover_secrets(location, target),
            labels=labels,
            timeout=MOVER_LIMIT,
            on_progress=lambda progress: moved("hydrate", progress),
        )
        result.raise_if_failed()
        return result

    hydrate_claim(
        target,
        point_id=plan.point_id,
        target_namespace=volume.namespace,
        claim_manifest=rewrite(planned.manifests[volume.manifest_path], plan.mappings),
        storage_class=volume.storage_class,
        requested_bytes=volume.requested_bytes,
        data_bytes=volume.data_bytes,
        run=run,
        extract=extract,
    )
    note("hydrate", f"{name}: {volume.data_bytes} bytes")
    return volume.data_bytes
