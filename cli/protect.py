"""The command `protect`: one run of the flow, told while it works, and its report."""

from __future__ import annotations

from cli import flags, given, output
from cli.reading import saved
from refloat.progress import Event, listening
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
    wrapper: flags.Wrapper = None,
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
    from blocks.handles import check_password, open_cluster
    from cli.progress import showing
    from cli.running import prefect_server, run_flow

    selection = given.Selection(name, namespace, selector, include, exclude, file, block)
    documents = given.documents(selection, saved, name_is_block=True)
    application = given.application(selection, documents)
    documented = documents.policy(application.name) if documents else None
    vaulting = given.Vaulting(vault, password_file, password_secret, accept, rpo, rto, wrapper)
    policy = vaulting.policy(application.name, documented)
    cluster = given.target(kubeconfig, context)
    check_password(policy.vault, open_cluster(cluster))  # wrong names are told before anything is started

    with prefect_server() as url:
        from flows.protect import protect as flow
    sealing = Sealing()
    with showing(verbose=verbose), listening(sealing.hear):
        report = run_flow(
            url, lambda: flow(application=application, policy=policy, cluster=cluster), left=lambda: sealing.said
        )
    output.show(form, report.model_dump(mode="json"), lambda _: tell(report))


class Sealing:
    """Whether the point exists already, for whoever interrupts the run."""

    def __init__(self) -> None:
        self.said = "nothing was sealed, and what the run created was removed"

    def hear(self, event: Event) -> None:
        """The seal is the one step after which an interruption no longer means that there is no point."""
        if event.step == "seal" and event.kind == "started":
            self.said = "whether the point was sealed is not known: refloat points shows it"
        elif event.step == "seal" and event.kind == "note":
            self.said = f"the point was sealed before: {event.text}"


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
