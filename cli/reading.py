"""Opening what read-only commands look at, without Prefect: a vault's catalogue, a plan, saved documents."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

from blocks.documents import Documents
from refloat.choosing import select
from refloat.errors import ConfigError
from refloat.plan import Mappings, Objective, Planned, RecoveryPlan
from refloat.policy import ProtectionPolicy, VaultLocation
from refloat.recovery_point import CataloguedPoint
from refloat.target import ClusterRef


def catalogued(location: VaultLocation, application: str | None, ref: ClusterRef) -> list[CataloguedPoint]:
    """A vault's points of one application, or of all, oldest first. The cluster is opened for a Secret only."""
    from blocks.handles import open_cluster, open_existing_vault
    from vault.catalogue import points

    vault = open_existing_vault(location, open_cluster(ref) if location.password.secret else None)
    try:
        return sorted(points(vault, application), key=lambda each: each.point.cut_at)
    finally:
        vault.close()


@dataclass(frozen=True)
class Shown:
    """A plan as it was shown, and the point it is for."""

    chosen: CataloguedPoint
    plan: RecoveryPlan


def choose(location: VaultLocation, application: str, objective: Objective, ref: ClusterRef) -> CataloguedPoint:
    """The point that meets the objective; see ``refloat.choosing``."""
    return select(catalogued(location, application, ref), application, objective)


def planned(chosen: CataloguedPoint, mappings: Mappings, location: VaultLocation, ref: ClusterRef) -> Shown:
    """The plan that a recovery of the point would carry out now; nothing is created."""
    return Shown(chosen, planned_whole(chosen, mappings, location, ref).plan)


def planned_whole(chosen: CataloguedPoint, mappings: Mappings, location: VaultLocation, ref: ClusterRef) -> Planned:
    """The same with the manifests it is about, which hold Secret data."""
    from blocks.handles import open_cluster, open_existing_vault
    from kube.planning import make_plan
    from vault.catalogue import manifests

    cluster = open_cluster(ref)
    vault = open_existing_vault(location, cluster)
    try:
        texts = manifests(vault, chosen)
    finally:
        vault.close()
    return Planned(make_plan(cluster, chosen, texts, mappings), texts)


def saved(name: str) -> Documents:
    """The documents saved as blocks of this name; the policy may be missing.

    Raises:
        ConfigError: There is no such application.
    """
    from cli.running import prefect_server

    with prefect_server():
        from blocks.saved import load_application, load_policy

    application = load_application(name)
    policies: tuple[ProtectionPolicy, ...] = ()
    with suppress(ConfigError):
        policies = (load_policy(name),)
    return Documents(f"block {name}", (application,), policies)
