"""Puts one application's protect flow on a schedule: a Prefect deployment that the UI shows and a worker runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from refloat.application import LABEL_PREFIX, Application
from refloat.errors import ConfigError, InvalidDocument
from refloat.policy import ProtectionPolicy
from refloat.target import ClusterRef

if TYPE_CHECKING:
    from prefect import Flow
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.actions import DeploymentScheduleCreate

FLOW = "protect"
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
    from flows.protect import protect

    schedule = schedule_of(policy)
    parameters = parameters_of(application, policy, cluster)
    about = f"Protects application {application.name} into {policy.vault.url}."
    made, is_pool_new = create(protect, application.name, schedule, parameters, about, pool)
    save_documents(application, policy)
    return Deployed(made, f"{FLOW}/{application.name}", pool, is_pool_new, said(policy))


def register_drill(
    application: Application, policy: ProtectionPolicy, cluster: ClusterRef, *, pool: str = POOL
) -> Deployed:
    """Create or renew ``drill/<application>``, on the schedule of the application's ``drill`` rules.

    Raises:
        InvalidDocument: The schedule is no cron text.
        ConfigError: The work pool exists and is of another type than a process.
    """
    from flows.drill import drill

    cron = application.drill.schedule
    parameters = {
        "application": application.name,
        "vault": policy.vault.model_dump(mode="json", by_alias=True),
        "rules": application.drill.model_dump(mode="json", by_alias=True),
        "cluster": cluster.model_dump(mode="json"),
        "objectives": policy.objectives.model_dump(mode="json", by_alias=True),
    }
    about = f"Recovers application {application.name} into closed namespaces, asks whether it is right, and removes it."
    schedule = cron_schedule(cron, f"application {application.name}: drill schedule")
    made, is_pool_new = create(drill, application.name, schedule, parameters, about, pool)
    return Deployed(made, f"drill/{application.name}", pool, is_pool_new, cron)


def create(
    flow: Flow[Any, Any],
    name: str,
    schedule: DeploymentScheduleCreate,
    parameters: Mapping[str, Any],
    about: str,
    pool: str,
) -> tuple[str, bool]:
    """Create or renew one deployment; its id, and whether the work pool was made for it."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.objects import ConcurrencyLimitStrategy, ConcurrencyOptions
    from prefect.utilities.callables import parameter_schema

    with get_client(sync_client=True) as client:
        is_pool_new = ensure_pool(client, pool)
        made = client.create_deployment(
            flow_id=client.create_flow_from_name(flow.name),
            name=name,
            # by module: a path would put flows/ first on the import path (research/prefect.md §12.1)
            entrypoint=f"flows.{flow.name}:{flow.name}",
            path="",
            schedules=[schedule],
            concurrency_limit=1,
            concurrency_options=ConcurrencyOptions(collision_strategy=ConcurrencyLimitStrategy.CANCEL_NEW),
            parameters=dict(parameters),
            parameter_openapi_schema=parameter_schema(flow).model_dump_for_openapi(),
            enforce_parameter_schema=True,
            description=about,
            work_pool_name=pool,
            tags=["refloat", f"application:{name}"],
            paused=False,
        )
    return str(made), is_pool_new


def said(policy: ProtectionPolicy) -> str | float:
    """The policy's schedule: cron text, or seconds between two runs."""
    return policy.schedule or policy.interval.total_seconds()


def schedule_of(policy: ProtectionPolicy) -> DeploymentScheduleCreate:
    """The policy's schedule as Prefect keeps it."""
    from prefect.client.schemas.actions import DeploymentScheduleCreate
    from prefect.client.schemas.schedules import IntervalSchedule

    if policy.schedule is None:
        every = IntervalSchedule(interval=policy.interval, timezone=TIME_ZONE)
        return DeploymentScheduleCreate(schedule=every, slug="policy")
    return cron_schedule(policy.schedule, f"policy {policy.name}: schedule")


def cron_schedule(cron: str, what: str) -> DeploymentScheduleCreate:
    """A cron text as Prefect keeps it.

    Raises:
        InvalidDocument: It is none.
    """
    from prefect.client.schemas.actions import DeploymentScheduleCreate
    from prefect.client.schemas.schedules import CronSchedule

    try:
        return DeploymentScheduleCreate(schedule=CronSchedule(cron=cron, timezone=TIME_ZONE), slug="policy")
    except ValueError as wrong:
        raise InvalidDocument(
            f"{what} {cron!r} is no cron text",
            guidance="Write five fields, for example '15 * * * *', or leave it out for the default.",
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
