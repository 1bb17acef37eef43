"""Puts one application's protect flow on a schedule: a Prefect deployment that the UI shows and a worker runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from refloat.application import LABEL_PREFIX, Application
from refloat.errors import ConfigError, InvalidDocument
from refloat.policy import ProtectionPolicy
from refloat.target import ClusterRef

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.actions import DeploymentScheduleCreate

FLOW = "protect"
ENTRY_POINT = "flows.protect:protect"
"""By module: a path would put flows/ first on the import path (research/prefect.md §12.1)."""
POOL = "refloat"
POOL_TYPE = "process"
TIME_ZONE = "UTC"


@dataclass(frozen=True)
class Deployed:
    """A deployment as the server keeps it. ``schedule`` is its cron text, or its interval in seconds."""

    id: str
    name: str
    pool: str
    is_pool_new: bool
    schedule: str | float


def register(application: Application, policy: ProtectionPolicy, cluster: ClusterRef, *, pool: str = POOL) -> Deployed:
    """Create or renew ``protect/<application>``, its documents as parameters and as blocks; needs a healthy server.

    A run that is due while another is at work is cancelled before it begins (research/prefect.md §4).

    Raises:
        InvalidDocument: The schedule is no cron text.
        ConfigError: The work pool exists and is of another type than a process.
    """
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.objects import ConcurrencyLimitStrategy, ConcurrencyOptions
    from prefect.utilities.callables import parameter_schema

    from flows.protect import protect

    schedule = schedule_of(policy)
    with get_client(sync_client=True) as client:
        is_pool_new = ensure_pool(client, pool)
        made = client.create_deployment(
            flow_id=client.create_flow_from_name(FLOW),
            name=application.name,
            entrypoint=ENTRY_POINT,
            path="",
            schedules=[schedule],
            concurrency_limit=1,
            concurrency_options=ConcurrencyOptions(collision_strategy=ConcurrencyLimitStrategy.CANCEL_NEW),
            parameters=parameters_of(application, policy, cluster),
            parameter_openapi_schema=parameter_schema(protect).model_dump_for_openapi(),
            enforce_parameter_schema=True,
            description=f"Protects application {application.name} into {policy.vault.url}.",
            work_pool_name=pool,
            tags=["refloat", f"application:{application.name}"],
            paused=False,
        )
    save_documents(application, policy)
    return Deployed(str(made), f"{FLOW}/{application.name}", pool, is_pool_new, said(policy))


def said(policy: ProtectionPolicy) -> str | float:
    """The policy's schedule: cron text, or seconds between two runs."""
    return policy.schedule or policy.interval.total_seconds()


def schedule_of(policy: ProtectionPolicy) -> DeploymentScheduleCreate:
    """The policy's schedule as Prefect keeps it."""
    from prefect.client.schemas.actions import DeploymentScheduleCreate
    from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule

    if policy.schedule is None:
        every = IntervalSchedule(interval=policy.interval, timezone=TIME_ZONE)
        return DeploymentScheduleCreate(schedule=every, slug="policy")
    try:
        return DeploymentScheduleCreate(schedule=CronSchedule(cron=policy.schedule, timezone=TIME_ZONE), slug="policy")
    except ValueError as wrong:
        raise InvalidDocument(
            f"policy {policy.name}: schedule {policy.schedule!r} is no cron text",
            guidance="Write five fields, for example '15 * * * *', or leave it out: every 80 % of the RPO.",
        ) from wrong


def parameters_of(application: Application, policy: ProtectionPolicy, cluster: ClusterRef) -> dict[str, Any]:
    """The documents themselves: names and addresses, no secret."""
    return {
        "application": application.model_dump(mode="json", by_alias=True, exclude_defaults=True)
        | {"apiVersion": application.api_version, "kind": application.kind},
        "policy": policy.model_dump(mode="json", by_alias=True, exclude_defaults=True)
        | {"apiVersion": policy.api_version, "kind": policy.kind},
        "cluster": cluster.model_dump(mode="json"),
    }


def ensure_pool(client: SyncPrefectClient, name: str) -> bool:
    """The work pool exists and starts processes; returns whether it was made now."""
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.exceptions import ObjectNotFound

    try:
        found = client.read_work_pool(name)
    except ObjectNotFound:
        from prefect.workers.process import ProcessWorker

        template = ProcessWorker.get_default_base_job_template()
        description = f"Runs of refloat ({LABEL_PREFIX})."
        client.create_work_pool(
            WorkPoolCreate(name=name, type=POOL_TYPE, base_job_template=template, description=description)
        )
        return True
    if found.type != POOL_TYPE:
        raise ConfigError(f"work pool {name} is of type {found.type}, not {POOL_TYPE}", guidance="Give another --pool.")
    return False


def save_documents(application: Application, policy: ProtectionPolicy) -> None:
    """Keep the documents as blocks under the application's name, so that commands can be given the name alone."""
    from blocks.saved import ApplicationBlock, ProtectionPolicyBlock

    documents = parameters_of(application, policy, ClusterRef())
    for block in (
        ApplicationBlock(document=documents["application"]),
        ProtectionPolicyBlock(document=documents["policy"]),
    ):
        block.save(application.name, overwrite=True, _sync=True)  # type: ignore[call-arg]
