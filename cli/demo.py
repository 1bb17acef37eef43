"""`refloat demo`: protect, lose, recover and compare a small application on a practice range, told while it happens."""

from __future__ import annotations

import os
import secrets
import shutil
from datetime import timedelta
from pathlib import Path
from typing import Any

from cli.output import many, remark, say, size, span
from cli.progress import showing
from cli.running import prefect_server, run_flow
from cli.shop import Shop
from kube.cluster import Cluster
from practice.range import PracticeRange
from refloat.clock import monotonic_seconds
from refloat.errors import ConfigError, IntegrityError
from refloat.policy import PasswordSource, ProtectionPolicy, VaultLocation
from refloat.report import ProtectReport, RecoverReport
from refloat.target import ClusterRef

ORDERS = 500
MARK = ".refloat-demo"
"""The file by which the demo knows a folder of its own, which the next one may replace."""
LEFT = "the practice range is gone; look at what is left in the demo's folder"


def run_demo(folder: Path) -> None:
    """Run the whole line below ``folder``, and leave a vault there that stock restic opens.

    Raises:
        ConfigError: The folder holds something that is not an earlier demo's.
        IntegrityError: What came back is not what was there.
        RefloatError: A step failed.
    """
    begun, place = monotonic_seconds(), prepare(folder)
    say(f"refloat demo: a shop (web, and a database on two volumes) on a practice range in {folder}; no cluster needed")
    policy = ProtectionPolicy(
        name="demo",
        vault=VaultLocation(url=f"file://{place}/vault", password=PasswordSource(file=str(place / "password"))),
    )
    with PracticeRange(place / "range") as practice:
        cluster = ClusterRef(kubeconfig=str(practice.kubeconfig))
        with prefect_server() as url:
            shop = Shop(Cluster.open(kubeconfig=str(practice.kubeconfig))).open()
            shop.place(ORDERS)
            before = facts(shop)
            say(f"  shop      {before['shop']['orders']} orders placed, {many(len(before['objects']), 'object')}")
            from flows.protect import protect
            from flows.recover import recover
        with showing(verbose=False):
            protected = run_flow(
                url, lambda: protect(application=shop.application(), policy=policy, cluster=cluster), left=LEFT
            )
            tell_protected(protected)
            shop.lose()
            say(f"  disaster  namespace {shop.namespace} deleted: no object and no volume is left of it")
            recovered = run_flow(
                url, lambda: recover(application="shop", vault=policy.vault, cluster=cluster), left=LEFT
            )
        tell_recovered(recovered)
        compare(before, facts(shop.wait_ready()))
    shutil.rmtree(place / "range", ignore_errors=True)
    say(f"  done      in {span(timedelta(seconds=monotonic_seconds() - begun))}")
    say("The vault is an ordinary restic repository, made with stock tools in mind:")
    say(f"  restic -r {folder}/vault --password-file {folder}/password snapshots")
    remark(f"The two runs are in the Prefect UI: {url.removesuffix('/api')}")


def prepare(folder: Path) -> Path:
    """An empty folder with a password file in it; an earlier demo's is replaced."""
    place = folder.absolute()
    if place.exists() and any(place.iterdir()) and not (place / MARK).exists():
        raise ConfigError(
            f"{folder} exists and was not made by an earlier demo",
            guidance="Give another folder with --folder, or remove it.",
        )
    try:
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        (place / MARK).touch()
        with os.fdopen(os.open(place / "password", os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_urlsafe(24) + "\n")
    except OSError as wrong:
        raise ConfigError(f"{folder} cannot be written: {wrong.strerror}") from wrong
    return place


def facts(shop: Shop) -> dict[str, Any]:
    """What the comparison looks at: every manifest a point would hold, and the shop's own word of its data."""
    return {"objects": shop.manifests(), "shop": shop.orders()}


def tell_protected(report: ProtectReport) -> None:
    """One line."""
    point = report.point
    say(
        f"  protect   {many(len(point.objects), 'object')}, {many(len(point.volumes), 'volume')}, "
        f"{size(point.data_bytes)}: sealed {point.id}, {point.consistency.value}, {span(report.duration)}"
    )


def tell_recovered(report: RecoverReport) -> None:
    """One line."""
    say(
        f"  recover   {many(report.created, 'object')}, {many(report.hydrated, 'volume')}, {size(report.data_bytes)} "
        f"from {report.source.point.id}: ready after {span(report.achieved_rto)}"
    )


def compare(before: dict[str, Any], after: dict[str, Any]) -> None:
    """Say what is the same and what differs.

    Raises:
        IntegrityError: Something differs or is missing.
    """
    was, now = before["objects"], after["objects"]
    differing = sorted(path for path in was.keys() | now.keys() if was.get(path) != now.get(path))
    for path in differing:
        word = "missing" if path not in now else "new" if path not in was else "changed"
        say(f"  compare   {word}: {path}")
    say(
        f"  compare   {before['shop']['orders']} orders before, {after['shop']['orders']} after; "
        f"{many(len(was) - len(differing), 'object')} of {len(was)} identical; "
        f"{after['shop']['files']} files, {'identical' if before['shop'] == after['shop'] else 'NOT identical'}"
    )
    if differing or before["shop"] != after["shop"]:
        raise IntegrityError("what came back is not what was there before", guidance="This is a bug: please report it.")
