"""The command `deploy`: one application's protect flow on a schedule, and how to have it run."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

from cli import flags, given, output
from cli.reading import saved
from deployments.registering import POOL, TIME_ZONE, Deployed, register, register_drill
from deployments.server import ui_of
from refloat.errors import ConfigError
from refloat.policy import VaultLocation

Pool = Annotated[str, typer.Option("--pool", metavar="NAME", help="Prefect work pool, made when it is missing.")]
Drill = Annotated[bool, typer.Option("--drill", help="A drill every quarter, too, or as the document's drill says.")]
KUBECONFIG = "KUBECONFIG"


def deploy(
    name: flags.Name = None,
    namespace: flags.Namespaces = None,
    selector: flags.Selector = "",
    include: flags.Include = None,
    exclude: flags.Exclude = None,
    file: flags.File = None,
    block: flags.BlockName = None,
    vault: flags.VaultUrl = None,
    password_file: flags.PasswordFile = None,
    password_secret: flags.PasswordSecret = None,
    wrapper: flags.Wrapper = None,
    accept: flags.Accept = None,
    rpo: flags.Rpo = None,
    rto: flags.Rto = None,
    kubeconfig: flags.Kubeconfig = None,
    context: flags.Context = None,
    pool: Pool = POOL,
    with_drill: Drill = False,
    form: flags.Output = flags.Form.TABLE,
    verbose: flags.Verbose = False,
) -> None:
    """Put an application's protection on a schedule.

    The policy's schedule, or every 80 % of its RPO; a Prefect worker runs it.
    """
    from cli.running import prefect_server

    selection = given.Selection(name, namespace, selector, include, exclude, file, block)
    documents = given.documents(selection, saved)
    application = given.application(selection, documents)
    documented = documents.policy(application.name) if documents else None
    policy = given.Vaulting(vault, password_file, password_secret, accept, rpo, rto, wrapper).policy(
        application.name, documented
    )
    if policy.application not in (None, application.name):
        raise ConfigError(f"policy {policy.name} is for application {policy.application}, not {application.name}")
    policy = policy.model_copy(update={"vault": anywhere(policy.vault)})
    cluster = given.target(kubeconfig or os.environ.get(KUBECONFIG) or None, context)
    cluster = cluster.model_copy(update={"kubeconfig": absolute(cluster.kubeconfig)})
    with prefect_server() as url:
        import flows.protect  # noqa: F401 - takes its time while a server starts
    deployed = register(application, policy, cluster, pool=pool)
    drilled = register_drill(application, policy, cluster, pool=pool) if with_drill else None
    output.show(form, facts(deployed, drilled, url), lambda _: tell(deployed, drilled, url))
    if verbose:
        output.remark(f"parameters: application {application.name}, policy {policy.name}, cluster {cluster}")


def anywhere(location: VaultLocation) -> VaultLocation:
    """The same with a password file that a worker finds whatever folder it runs in."""
    password = location.password
    if password.file is None:
        return location
    return location.model_copy(update={"password": password.model_copy(update={"file": absolute(password.file)})})


def absolute(path: str | None) -> str | None:
    """A path that does not depend on the current folder; ``~`` stays the worker's own."""
    return path if path is None or path.startswith("~") or os.pathsep in path else str(Path(path).absolute())


def facts(deployed: Deployed, drilled: Deployed | None, url: str) -> dict[str, Any]:
    """What was registered, for scripts."""
    return {
        "deployment": deployed.name,
        "id": deployed.id,
        "work_pool": deployed.pool,
        "schedule": deployed.schedule,
        "api_url": url,
        "ui": address(deployed, url),
        "worker": worker(deployed, url),
        "drill": {"deployment": drilled.name, "id": drilled.id, "schedule": drilled.schedule} if drilled else None,
    }


def address(deployed: Deployed, url: str) -> str:
    """Where Prefect shows it."""
    return f"{ui_of(url)}/deployments/deployment/{deployed.id}"


def worker(deployed: Deployed, url: str) -> str:
    """The command that starts a worker for it."""
    return f"PREFECT_API_URL={url} prefect worker start --pool {deployed.pool}"


def tell(deployed: Deployed, drilled: Deployed | None, url: str) -> None:
    """The result, and what is still to do: without a worker nothing runs."""
    when = deployed.schedule
    every = f"cron {when} (UTC)" if isinstance(when, str) else f"every {output.span(timedelta(seconds=when))}"
    output.say(f"deployed  {deployed.name}  {every}, one run at a time")
    if drilled:
        output.say(f"drill     {drilled.name}  cron {drilled.schedule} ({TIME_ZONE})")
    output.say(f"pool      {deployed.pool}{' (made now)' if deployed.is_pool_new else ''}")
    output.say(f"UI        {address(deployed, url)}")
    output.say(f"worker    {worker(deployed, url)}")
    output.remark(
        "the worker needs what this command needs: kubeconfig, vault password, store credentials, mover image"
    )
