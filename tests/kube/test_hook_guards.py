"""Guards of post-hooks: silent while refloat speaks; once it does not, they run the post-hook once, and say so."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from kube.cluster import Cluster
from kube.holding import Hold
from kube.hook_guards import check, guarded
from kube.hooks import PlannedHook, plan_hooks, release, run_pre
from refloat.application import HoldRules, Hook
from refloat.clock import pause
from refloat.errors import QuiesceFailed
from refloat.recovery_point import new_id
from tests.contract.given import SOON, sh, unique, until_gone
from tests.kube.test_hooks import application, command, pods_with_hooks
from tests.until import until

RULES = HoldRules(lease=timedelta(seconds=3), heartbeat=timedelta(seconds=0.5), softBudget=timedelta(seconds=5))
BASES = "/dev/shm /tmp /run /var/tmp"
BOTH = ["pre", "post"]


@pytest.fixture
def log() -> Iterator[str]:
    """A file in the pod; the practice range's pods have this machine's file system, beside volumes of their own."""
    path = Path(f"/tmp/{unique('hooks')}")
    yield str(path)
    path.unlink(missing_ok=True)


def pair(log: str) -> Hook:
    """Two hooks that write themselves down."""
    return Hook(pre=command(f"echo pre >> {log}"), post=command(f"echo post >> {log}"))


def log_of(cluster: Cluster, namespace: str, log: str) -> list[str]:
    """What hooks wrote."""
    return sh(cluster, namespace, "a", f"cat {log} 2>/dev/null || true").split()


def hooks_of(cluster: Cluster, namespace: str, *hooks: Hook) -> list[PlannedHook]:
    """What is planned for one pod."""
    return plan_hooks(application(*hooks), pods_with_hooks(cluster, namespace, "a"))


def test_it_does_nothing_while_refloat_lives(cluster: Cluster, namespace: str, log: str) -> None:
    """The hooks run as without it, once each, and nothing of it is left in the pod."""
    hooks = hooks_of(cluster, namespace, pair(log))
    warnings: list[str] = []
    with guarded(cluster, hooks, RULES, run=new_id(), warn=warnings.append) as guards:
        run_pre(cluster, hooks)
        pause(RULES.lease + timedelta(seconds=1))
        check(guards)
        release(cluster, hooks)
    assert (len(guards), warnings) == (1, [])
    assert log_of(cluster, namespace, log) == BOTH
    until(lambda: folders(cluster, namespace) == "", "the guard is gone", SOON)


def folders(cluster: Cluster, namespace: str) -> str:
    """What holders have left in the pod's container."""
    ended = cluster.exec(
        namespace,
        "a",
        "main",
        ["sh", "-c", f"ls -d $(printf '%s/refloat-*-hook[0-9]* ' {BASES}) 2>/dev/null"],
        timeout=RULES.lease,
    )
    return ended.stdout.decode()


def ended_session(guard: Hold) -> None:
    """As when refloat dies: the session ends without a word."""
    for part in guard.parts:
        part.close()


def test_the_end_of_its_session_runs_the_post_hook_once(cluster: Cluster, namespace: str, log: str) -> None:
    """And whoever still lives learns that it was too early."""
    hooks = hooks_of(cluster, namespace, pair(log))
    warnings: list[str] = []
    with guarded(cluster, hooks, RULES, run=new_id(), warn=warnings.append) as guards:
        run_pre(cluster, hooks)
        ended_session(guards[0])
        until(lambda: log_of(cluster, namespace, log) == BOTH, "the post-hook ran", timedelta(seconds=2))
        until(lambda: not guards[0].is_whole, "that is learnt", SOON)
        with pytest.raises(QuiesceFailed, match=re.escape(f"the post-hook in {namespace}/a was run before")):
            check(guards)
    assert log_of(cluster, namespace, log) == BOTH
    until(lambda: folders(cluster, namespace) == "", "the guard is gone", SOON)


def test_silence_runs_the_post_hook_once(cluster: Cluster, namespace: str, log: str) -> None:
    """The lease: no beat is sent, and nobody ends the session."""
    hooks = hooks_of(cluster, namespace, pair(log))
    silent = RULES.model_copy(update={"heartbeat": timedelta(minutes=5)})
    warnings: list[str] = []
    with guarded(cluster, hooks, silent, run=new_id(), warn=warnings.append) as guards:
        run_pre(cluster, hooks)
        until(lambda: log_of(cluster, namespace, log) == BOTH, "it ran", RULES.lease + timedelta(seconds=2))
    assert not guards[0].is_whole
    assert log_of(cluster, namespace, log) == BOTH


def test_only_what_a_pre_hook_touched_is_guarded(cluster: Cluster, namespace: str) -> None:
    """A post-hook alone lets nothing go."""
    hooks = hooks_of(cluster, namespace, Hook(post=command("true")))
    with guarded(cluster, hooks, RULES, run=new_id(), warn=[].append) as guards:
        assert guards == []


def test_a_pod_that_cannot_guard_is_told(cluster: Cluster, namespace: str, log: str) -> None:
    """The hooks of a pod that went are not guarded, and that is said; as of a container without a shell."""
    hooks = hooks_of(cluster, namespace, pair(log))
    cluster.delete("Pod", "a", namespace)
    until_gone(cluster, "Pod", "a", namespace)
    warnings: list[str] = []
    with guarded(cluster, hooks, RULES, run=new_id(), warn=warnings.append) as guards:
        assert guards == []
    assert len(warnings) == 1
    assert f"nothing guards the post-hook in {namespace}/a" in warnings[0]
