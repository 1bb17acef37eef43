"""The command `expire`: the plan of retention is shown with its reasons, and after a yes carried out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from cli import flags, given, output
from cli.drawing import draw_rows
from cli.reading import saved
from cli.vault import open_located
from refloat.policy import Retention
from refloat.recovery_point import new_id

if TYPE_CHECKING:
    from rich.console import Console

    from vault.expiry import ExpiryPlan


def _keep(rule: str) -> typer.models.OptionInfo:
    option: typer.models.OptionInfo = typer.Option(
        f"--{rule}", metavar="N", min=0, help=f"Keep so many {rule} points; default: the policy's."
    )
    return option


Hourly = Annotated[int | None, _keep("hourly")]
Daily = Annotated[int | None, _keep("daily")]
Weekly = Annotated[int | None, _keep("weekly")]
Monthly = Annotated[int | None, _keep("monthly")]
Yearly = Annotated[int | None, _keep("yearly")]


def expire(
    name: flags.Name = None,
    namespace: flags.Namespaces = None,
    file: flags.File = None,
    block: flags.BlockName = None,
    hourly: Hourly = None,
    daily: Daily = None,
    weekly: Weekly = None,
    monthly: Monthly = None,
    yearly: Yearly = None,
    vault: flags.VaultUrl = None,
    password_file: flags.PasswordFile = None,
    password_secret: flags.PasswordSecret = None,
    wrapper: flags.Wrapper = None,
    kubeconfig: flags.Kubeconfig = None,
    context: flags.Context = None,
    yes: flags.Yes = False,
    dry_run: flags.DryRun = False,
    form: flags.Output = flags.Form.TABLE,
) -> None:
    """Let old recovery points of an application go.

    Every decision is shown with its reason. The last good point stays, whatever the rules say. The space is freed by
    refloat vault prune.
    """
    from vault.expiry import expire as expire_points
    from vault.expiry import plan_expiry

    selection = given.Selection(name, namespace, file=file, block=block)
    documents = given.documents(selection, saved)
    application = given.application_name(selection, documents)
    policy = documents.policy(application) if documents else None
    asked = {"hourly": hourly, "daily": daily, "weekly": weekly, "monthly": monthly, "yearly": yearly}
    documented = policy.retention if policy else Retention()
    rules = documented.model_copy(update={rule: count for rule, count in asked.items() if count is not None})
    location = given.Vaulting(vault, password_file, password_secret, wrapper=wrapper).location(
        policy.vault if policy else None
    )
    with open_located(location, kubeconfig, context) as found:
        plan = plan_expiry(found, application, rules)
        if dry_run or not plan.expiring:
            output.show(form, {**plan.as_json(), "expired": []}, lambda console: draw_expiry(console, plan))
            return
        if not yes:
            draw_expiry(output.console(stderr=True), plan)
            output.ask(f"let {output.many(len(plan.expiring), 'point')} of {application} expire?")
        gone = expire_points(found, plan, rules, run=new_id())
    output.show(
        form, {**plan.as_json(), "expired": [point.id for point in gone]},
        lambda _: output.say(f"{output.many(len(gone), 'point')} of {application} expired"),
    )  # fmt: skip


def draw_expiry(console: Console, plan: ExpiryPlan) -> None:
    """One line a point, newest last, with the reason of its decision; and the count."""
    rows = [
        [
            "keep" if each.is_kept else "expire",
            each.point.id,
            f"{each.point.cut_at:%Y-%m-%d %H:%M:%S}Z",
            each.point.consistency.value,
            "; ".join(each.reasons),
        ]
        for each in plan.decisions
    ]
    draw_rows(console, ["DECISION", "POINT", "CUT", "LABEL", "WHY"], rows)
    console.print(f"keep {len(rows) - len(plan.expiring)}  expire {len(plan.expiring)}")
