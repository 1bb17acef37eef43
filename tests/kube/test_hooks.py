"""Hooks: which run, in which order and for how long; and whatever fails, every pod touched is let go."""

from __future__ import annotations

import os
import shlex
import signal
import threading
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest

from kube.cluster import Cluster
from kube.hooks import PlannedHook, plan_hooks, release, run_pre
from practice.access import Fault
from practice.range import PracticeRange
from refloat.application import Application, Hook, HookCommand, Member
from refloat.errors import InvalidDocument, ObjectMissing, QuiesceFailed, ThawUnconfirmed
from refloat.inventory import Inventory, Pod
from tests.contract.given import STAYS, container, pod, sh, start, until_phase

SECOND = timedelta(seconds=1)
LOG = "/work/log"
VELERO = "hook.backup.velero.io"


def command(script: str, **fields: Any) -> HookCommand:
    """A hook that is a shell script."""
    return HookCommand(command=("sh", "-c", script), **fields)


def says(word: str, **fields: Any) -> HookCommand:
    """A hook that writes a word into its pod's log."""
    return command(f"echo {word} >> {LOG}", **fields)


def pods_with_hooks(
    cluster: Cluster, namespace: str, *names: str, annotations: dict[str, str] | None = None
) -> Inventory:
    """Running pods of two containers that share a folder, as discovery gives them."""
    found = []
    for name in names:
        made = pod(namespace, name, containers=[container(STAYS), container(STAYS, "side")])
        made["metadata"] |= {"labels": {"app": name, "tier": "db"}, "annotations": annotations or {}}
        start(cluster, made)
    for name in names:
        seen = until_phase(cluster, name, namespace, "Running")
        found.append(
            Pod(
                namespace=namespace,
                name=name,
                uid=seen["metadata"]["uid"],
                phase="Running",
                labels=seen["metadata"]["labels"],
                annotations=seen["metadata"].get("annotations") or {},
                containers=("main", "side"),
            )
        )
    return Inventory("shop", (), (), tuple(found))


def application(*hooks: Hook) -> Application:
    """An application with these hooks."""
    return Application(name="shop", members=(Member(namespace="n"),), hooks=hooks)


def log_of(cluster: Cluster, namespace: str, name: str) -> list[str]:
    """What hooks wrote in a pod."""
    return sh(cluster, namespace, name, f"cat {LOG} 2>/dev/null || true").split()


def test_in_order_and_back(cluster: Cluster, namespace: str) -> None:
    """Pre-hooks rule by rule and pod by pod, post-hooks the other way round; each recorded as it ran."""
    inventory = pods_with_hooks(cluster, namespace, "a", "b")
    app = application(
        Hook(selector="tier=db", pre=says("first-pre"), post=says("first-post")),
        Hook(selector="app=b", container="side", pre=says("second-pre"), post=says("second-post")),
    )
    hooks = plan_hooks(app, inventory)
    records = run_pre(cluster, hooks)
    assert [(r.phase, r.pod, r.container, r.exit_code) for r in records] == [
        ("pre", "a", "main", 0),
        ("pre", "b", "main", 0),
        ("pre", "b", "side", 0),
    ]
    assert log_of(cluster, namespace, "b") == ["first-pre", "second-pre"]
    back = release(cluster, hooks)
    assert [(r.pod, r.container) for r in back] == [("b", "side"), ("b", "main"), ("a", "main")]
    assert log_of(cluster, namespace, "b") == ["first-pre", "second-pre", "second-post", "first-post"]
    ran = [*records, *back]
    assert all(one.started_at + one.duration <= two.started_at for one, two in pairwise(ran))


def test_veleros_annotations_as_they_are(cluster: Cluster, namespace: str) -> None:
    """A JSON command in a named container, its limits; it stands in the document's place for that phase only."""
    annotations = {
        f"pre.{VELERO}/command": f'["sh", "-c", "echo annotated >> {LOG}"]',
        f"pre.{VELERO}/container": "side",
        f"pre.{VELERO}/timeout": "5s",
        f"pre.{VELERO}/on-error": "Continue",
    }
    inventory = pods_with_hooks(cluster, namespace, "a", annotations=annotations)
    hooks = plan_hooks(application(Hook(selector="app=a", pre=says("document"), post=says("after"))), inventory)
    assert [(h.source, h.phase, h.container) for h in hooks] == [
        ("velero-annotation", "pre", "side"),
        ("document", "post", "main"),
    ]
    assert hooks[0].command.timeout == 5 * SECOND
    assert hooks[0].command.on_error == "continue"
    (record,) = run_pre(cluster, hooks)
    assert record.source == "velero-annotation"
    assert record.allowed_to_fail
    release(cluster, hooks)
    assert log_of(cluster, namespace, "a") == ["annotated", "after"]


def planned(annotations: dict[str, str], *hooks: Hook) -> list[PlannedHook]:
    """What is planned for one running pod with these annotations."""
    one = Pod("n", "p", "u", "Running", {"app": "p"}, annotations, ("main", "side"))
    return plan_hooks(application(*hooks), Inventory("shop", (), (), (one,)))


def test_how_annotations_are_spelt() -> None:
    """Without a phase it is a pre-hook; one word is a command without arguments; 30 s and the first container."""
    (old,) = planned({f"{VELERO}/command": "/bin/quiesce"})
    assert (old.phase, old.command.command, old.container) == ("pre", ("/bin/quiesce",), "main")
    assert (old.command.timeout, old.command.on_error) == (30 * SECOND, "fail")
    newer = {f"{VELERO}/command": "/bin/old", f"pre.{VELERO}/command": "/bin/new"}
    assert [hook.command.command for hook in planned(newer)] == [("/bin/new",)]
    (post,) = planned({f"post.{VELERO}/command": '["/bin/thaw", "now"]', f"post.{VELERO}/timeout": "4h"})
    assert post.command.command == ("/bin/thaw", "now")
    assert post.command.timeout == timedelta(minutes=10), "no hook holds longer"
    assert post.by_hand == "kubectl exec -n n p -c main -- /bin/thaw now"


@pytest.mark.parametrize(
    "wrong",
    [
        {f"pre.{VELERO}/command": "[not json"},
        {f"pre.{VELERO}/command": "[]"},
        {f"pre.{VELERO}/command": "/bin/true", f"pre.{VELERO}/timeout": "soon"},
    ],
)
def test_a_malformed_annotation_names_its_pod(wrong: dict[str, str]) -> None:
    """Before anything runs."""
    with pytest.raises(InvalidDocument, match="n/p"):
        planned(wrong)


def test_hooks_that_would_never_run() -> None:
    """A selector without a pod, a container that is not there: errors, for a hook that never runs protects nothing."""
    with pytest.raises(ObjectMissing, match="chooses no running pod"):
        planned({}, Hook(selector="app=other", pre=says("x")))
    with pytest.raises(ObjectMissing, match=r"n/p has no container 'absent'"):
        planned({}, Hook(container="absent", pre=says("x")))
    with pytest.raises(ObjectMissing, match=r"no container 'absent'"):
        planned({f"pre.{VELERO}/command": "x", f"pre.{VELERO}/container": "absent"})


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (command(f"echo bad >> {LOG}; echo the disk is full >&2; exit 3"), "ended with 3: the disk is full"),
        (command(f"echo bad >> {LOG}; sleep 60", timeout=SECOND), "did not end within 1 s"),
        (HookCommand(command=("/no/such/program",)), "could not be run"),
    ],
    ids=["fails", "takes too long", "is not there"],
)
def test_a_pre_hook_that_fails_lets_everyone_go(cluster: Cluster, namespace: str, bad: HookCommand, words: str) -> None:
    """The pods touched are released, the failing one too; those not reached yet are not touched at all."""
    inventory = pods_with_hooks(cluster, namespace, "a", "b", "c")
    rules = [
        Hook(selector="app=a", pre=says("pre"), post=says("post")),
        Hook(selector="app=b", pre=bad, post=says("post")),
        Hook(selector="app=c", pre=says("pre"), post=says("post")),
    ]
    with pytest.raises(QuiesceFailed, match=f"{namespace}/b: .*{words}"):
        run_pre(cluster, plan_hooks(application(*rules), inventory))
    assert log_of(cluster, namespace, "a") == ["pre", "post"]
    assert log_of(cluster, namespace, "b")[-1] == "post"
    assert log_of(cluster, namespace, "c") == []


def test_a_hook_that_may_fail(cluster: Cluster, namespace: str) -> None:
    """Its failure is recorded and stops nothing, before and after."""
    inventory = pods_with_hooks(cluster, namespace, "a")
    bad = command("exit 7", on_error="continue")
    hooks = plan_hooks(application(Hook(pre=bad, post=bad), Hook(pre=says("pre"), post=says("post"))), inventory)
    records = [*run_pre(cluster, hooks), *release(cluster, hooks)]
    assert [(r.exit_code, r.allowed_to_fail) for r in records] == [(7, True), (0, False), (0, False), (7, True)]
    assert log_of(cluster, namespace, "a") == ["pre", "post"]


def test_a_post_hook_that_fails_is_for_a_person(cluster: Cluster, namespace: str) -> None:
    """Every other pod is released all the same; the message holds the command to run by hand, which is the hook's."""
    inventory = pods_with_hooks(cluster, namespace, "a", "b")
    thaw = command(f"echo 'thawed by hand' > /work/thawed; echo post >> {LOG}; test -e /work/allowed")
    hooks = plan_hooks(application(Hook(pre=says("pre"), post=thaw)), inventory)
    run_pre(cluster, hooks)
    sh(cluster, namespace, "a", "touch /work/allowed")
    with pytest.raises(ThawUnconfirmed) as failure:
        release(cluster, hooks)
    message = failure.value.message
    assert f"{namespace}/b" in message
    assert f"{namespace}/a" not in message
    assert log_of(cluster, namespace, "a") == ["pre", "post"]
    words = shlex.split(message.partition("by hand: ")[2])
    head, tail = words[: words.index("--")], words[words.index("--") + 1 :]
    assert head == ["kubectl", "exec", "-n", namespace, "b", "-c", "main"]
    sh(cluster, namespace, "b", "touch /work/allowed")
    assert cluster.exec(namespace, "b", "main", tail, timeout=10 * SECOND).exit_code == 0


def test_both_fail(cluster: Cluster, namespace: str) -> None:
    """A pod that may still be quiesced matters more than the hook that began it, which stays the cause."""
    inventory = pods_with_hooks(cluster, namespace, "a")
    hooks = plan_hooks(application(Hook(pre=command("exit 1"), post=command("exit 2"))), inventory)
    with pytest.raises(ThawUnconfirmed, match="ended with 2") as failure:
        run_pre(cluster, hooks)
    assert isinstance(failure.value.__cause__, QuiesceFailed)


def test_a_pod_that_went_away(cluster: Cluster, namespace: str) -> None:
    """It cannot be released, and is not said to have been."""
    inventory = pods_with_hooks(cluster, namespace, "a", "b")
    hooks = plan_hooks(application(Hook(pre=says("pre"), post=says("post"))), inventory)
    run_pre(cluster, hooks)
    cluster.delete("Pod", "a", namespace, grace_seconds=0)
    cluster.wait("Pod", "a", namespace, lambda obj: obj is None, timeout=60 * SECOND, what="a gone")
    with pytest.raises(ThawUnconfirmed, match=rf"{namespace}/a: sh could not be run"):
        release(cluster, hooks)
    assert log_of(cluster, namespace, "b") == ["pre", "post"]


def test_signals_wait_until_everyone_is_let_go(cluster: Cluster, namespace: str) -> None:
    """Ctrl-C and SIGTERM in the middle of the release do not cut it short, and work again afterwards."""
    inventory = pods_with_hooks(cluster, namespace, "a", "b")
    slow = command(f"sleep 1; echo post >> {LOG}")
    hooks = plan_hooks(application(Hook(post=slow)), inventory)
    sent = []

    def interrupt() -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            os.kill(os.getpid(), number)
            sent.append(number)

    timer = threading.Timer(0.5, interrupt)
    timer.start()
    release(cluster, hooks)
    timer.join()
    assert sent == [signal.SIGINT, signal.SIGTERM]
    assert [log_of(cluster, namespace, name) for name in ("a", "b")] == [["post"], ["post"]]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_lost_connection_is_no_success(practice: PracticeRange) -> None:
    """The API server drops the exec of a pre-hook: failed, and the pods are released."""
    cluster = Cluster.open(kubeconfig=str(practice.kubeconfig))
    cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "app"}})
    inventory = pods_with_hooks(cluster, "app", "a")
    hooks = plan_hooks(application(Hook(pre=says("pre"), post=says("post"))), inventory)
    fault = practice.access.inject(Fault("drop", r"/pods/a/exec"))
    with pytest.raises(QuiesceFailed, match="could not be run"):
        run_pre(cluster, hooks)
    assert fault.fired == 1
    assert log_of(cluster, "app", "a") == ["post"]
