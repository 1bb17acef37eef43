"""The command `sweep`: what dead runs left is shown, and after a yes removed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from cli import flags, given, output
from refloat.errors import ConfigError

Run = Annotated[str | None, typer.Option("--run", metavar="ID", help="Only what this run left.")]
RUN_DIGITS = 16


def sweep(
    run: Run = None,
    dry_run: flags.DryRun = False,
    yes: flags.Yes = False,
    kubeconfig: flags.Kubeconfig = None,
    context: flags.Context = None,
    form: flags.Output = flags.Form.TABLE,
    verbose: flags.Verbose = False,
) -> None:
    """Remove what dead runs left behind in a cluster.

    Temporary objects only: what was recovered stays.
    """
    from blocks.handles import open_cluster
    from kube.sweep import sweep as sweep_cluster

    if run is not None and (len(run) != RUN_DIGITS or set(run) - set("0123456789abcdef")):
        raise ConfigError(f"--run {run!r} is no run's id: {RUN_DIGITS} hexadecimal digits")
    cluster = given.target(kubeconfig, context)
    found = [str(ref) for ref in sweep_cluster(open_cluster(cluster), run=run, dry_run=True)]
    if dry_run or not found:
        output.show(form, found, lambda _: tell(found, "would be removed"))
        return
    if not yes:
        for each in found:
            output.remark(each)
        output.ask(f"remove {output.many(len(found), 'temporary object')}?")
    from cli.progress import showing
    from cli.running import prefect_server, run_flow

    with prefect_server() as url:
        from flows.sweep import sweep as flow
    with showing(verbose=verbose):
        gone = run_flow(url, lambda: flow(cluster=cluster, run=run), left="run refloat sweep again to go on")
    output.show(form, gone, lambda _: tell(gone, "removed"))


def tell(names: Sequence[str], what: str) -> None:
    """One line each, and the count."""
    for name in names:
        output.say(name)
    output.say(f"{output.many(len(names), 'temporary object')} {what}" if names else "nothing was left behind")
