"""The commands that only look: `discover` and `points`. They never need Prefect."""

from __future__ import annotations

from typing import Any

from cli import flags, given, output
from cli.drawing import draw_points
from cli.reading import catalogued, saved
from cli.tree import draw_inventory
from refloat.choosing import select
from refloat.clock import now
from refloat.errors import ConfigError
from refloat.explaining import explain_point
from refloat.inventory import Found, Inventory
from refloat.recovery_point import RecoveryPoint


def discover(
    name: flags.Name = None,
    namespace: flags.Namespaces = None,
    selector: flags.Selector = "",
    include: flags.Include = None,
    exclude: flags.Exclude = None,
    file: flags.File = None,
    block: flags.BlockName = None,
    kubeconfig: flags.Kubeconfig = None,
    context: flags.Context = None,
    form: flags.Output = flags.Form.TABLE,
    verbose: flags.Verbose = False,
) -> None:
    """Show what belongs to an application, and why.

    Touches nothing.
    """
    from blocks.handles import open_cluster
    from kube.discovery import discover as discover_in

    selection = given.Selection(name, namespace, selector, include, exclude, file, block)
    application = given.application(selection, given.documents(selection, saved, name_is_block=True))
    inventory = discover_in(open_cluster(given.target(kubeconfig, context)), application)
    output.show(form, facts_of(inventory), lambda console: draw_inventory(console, inventory))
    for text in inventory.warnings:
        output.remark(f"warning: {text}")
    if verbose:
        for each in inventory.excluded:
            output.remark(f"excluded: {each.ref}")


def points(
    name: flags.Name = None,
    namespace: flags.Namespaces = None,
    file: flags.File = None,
    block: flags.BlockName = None,
    explain: flags.Explain = False,
    point: flags.Point = None,
    at: flags.At = None,
    vault: flags.VaultUrl = None,
    password_file: flags.PasswordFile = None,
    password_secret: flags.PasswordSecret = None,
    wrapper: flags.Wrapper = None,
    kubeconfig: flags.Kubeconfig = None,
    context: flags.Context = None,
    form: flags.Output = flags.Form.TABLE,
    verbose: flags.Verbose = False,
) -> None:
    """List the recovery points of an application, or explain the label of one.

    Oldest first; without NAME, those of every application in the vault. With --explain: what proves the label.
    """
    selection = given.Selection(name, namespace, file=file, block=block)
    documents = given.documents(selection, saved)
    try:
        application: str | None = given.application_name(selection, documents)
    except ConfigError:
        application = None  # none is meant: all are listed
    location = given.Vaulting(vault, password_file, password_secret, wrapper=wrapper).location(
        given.documented_vault(documents, application)
    )
    found = catalogued(location, application, given.target(kubeconfig, context))
    if explain or point or at:
        found = [select(found, application or "any", given.objective(point, at))]
    if explain:
        one = found[0].point
        output.show(form, proof_of(one), lambda console: console.print("\n".join(explain_point(one))))
        return
    values = [each.model_dump(mode="json") for each in found]
    output.show(form, values, lambda console: draw_points(console, found, now(), with_application=application is None))
    if not found and form is flags.Form.TABLE:
        output.remark(f"{location.url} holds no recovery point{f' of {application}' if application else ''}")
    if verbose:
        output.remark(f"vault {location.url}")


def proof_of(point: RecoveryPoint) -> dict[str, Any]:
    """A point's label and its certificate as it is stored, for scripts."""
    certificate = point.certificate.model_dump(mode="json") if point.certificate else None
    return {
        "point": point.id,
        "application": point.application,
        "consistency": point.consistency.value,
        "certificate": certificate,
    }


def facts_of(inventory: Inventory) -> dict[str, Any]:
    """An inventory for scripts: names, reasons and volumes; no manifest, for these hold Secret data."""

    def named(found: Found) -> dict[str, Any]:
        source = found.reason.source
        return {
            "ref": found.ref.model_dump(),
            "reason": {
                "relation": found.reason.relation,
                "source": source.model_dump() if source else None,
                "text": str(found.reason),
            },
        }

    return {
        "application": inventory.application,
        "objects": [named(each) for each in inventory.objects],
        "volumes": [
            {
                "namespace": each.namespace,
                "claim": each.claim,
                "phase": each.phase,
                "volume_name": each.volume_name,
                "driver": each.driver,
                "storage_class": each.storage_class,
                "requested_bytes": each.requested_bytes,
                "access_modes": list(each.access_modes),
                "mode": each.mode,
            }
            for each in inventory.volumes
        ],
        "pods": [{"namespace": each.namespace, "name": each.name, "phase": each.phase} for each in inventory.pods],
        "shared": [each.model_dump() for each in inventory.shared],
        "excluded": [named(each) for each in inventory.excluded],
        "warnings": list(inventory.warnings),
    }
