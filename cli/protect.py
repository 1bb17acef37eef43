"""The command `protect`: one run of the flow, told while it works, and its report."""

from __future__ import annotations

from cli import flags, given, output
from cli.reading import saved
from refloat.report import ProtectReport


def protect(
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
    accept: flags.Accept = None,
    rpo: flags.Rpo = None,
    rto: flags.Rto = None,
    kubeconfig: flags.Kubeconfig = None,
    context: flags.Context = None,
    form: flags.Output = flags.Form.TABLE,
    verbose: flags.Verbose = False,
) -> None:
    """Make one recovery point of an application.

    Its objects and volumes are sealed in the vault; what the run needed for that is gone afterwards.
    """
    from blocks.handles import open_cluster, read_password
    from cli.progress import showing
    from cli.running import prefect_server, run_flow

    selection = given.Selection(name, namespace, selector, include, exclude, file, block)
    documents = given.documents(selection, saved, name_is_block=True)
    application = given.application(selection, documents)
    documented = documents.policy(application.name) if documents else None
    vaulting = given.Vaulting(vault, password_file, password_secret, accept, rpo, rto)
    policy = vaulting.policy(application.name, documented)
    cluster = given.target(kubeconfig, context)
    read_password(policy.vault.password, open_cluster(cluster))  # wrong names are told before anything is started

    with prefect_server() as url:
        from flows.protect import protect as flow
    with showing(verbose=verbose):
        left = "nothing was sealed, and what the run created was removed"
        report = run_flow(url, lambda: flow(application=application, policy=policy, cluster=cluster), left=left)
    output.show(form, report.model_dump(mode="json"), lambda _: tell(report))


def tell(report: ProtectReport) -> None:
    """The result in two lines, and what to do next."""
    point = report.point
    output.say(
        f"sealed    {point.id}  {point.consistency.value}  {output.many(len(point.objects), 'object')}  "
        f"{output.many(len(point.volumes), 'volume')}  {output.size(point.data_bytes)} "
        f"({output.size(report.added_bytes)} new)  {output.span(report.duration)}  verified by {report.verified}"
    )
    if report.achieved_rpo is not None:
        late = "" if report.achieved_rpo <= report.rpo else ", missed"
        output.say(
            f"RPO       {output.span(report.achieved_rpo)} since the point before "
            f"(objective {output.span(report.rpo)}{late})"
        )
    output.remark(f"next: refloat plan {report.application} --vault {report.vault_url}")
