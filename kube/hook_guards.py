"""Guards of post-hooks: what a pre-hook brought to rest is let go by its own container when refloat falls silent.

A guard is a holder (`kube/holder.sh`) that holds nothing: refloat runs the hooks as ever, and while it beats, the guard
waits. Once its session ends, its lease lapses or its hard limit is over, the guard runs the post-hook itself, once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from shlex import join

from kube.cluster import Cluster
from kube.held_part import PlannedPart, look
from kube.holding import Hold, held
from kube.hooks import PlannedHook
from refloat.application import HoldRules
from refloat.errors import QuiesceFailed, RefloatError
from refloat.ports.quiescer import HoldScript, Place

# made once: the watchdog, and the holder that it ends, both undo
FUNCTIONS = """arm() { if command -v timeout >/dev/null; then within="timeout $seconds"; else within=; fi; }
freeze() { :; }
beat() { :; }
release() { :; }
facts() { facts=; }
undo() { mkdir "$dir/post-hook" 2>/dev/null || return 0; $within POST </dev/null >/dev/null 2>&1; }
"""
NOTHING = ("sh", "-c", ":")


@contextmanager
def guarded(
    cluster: Cluster, hooks: Sequence[PlannedHook], rules: HoldRules, *, run: str, warn: Callable[[str], None]
) -> Iterator[list[Hold]]:
    """Guard every pod's post-hook that follows a pre-hook, while the block runs; give the guards to `check`.

    Args:
        cluster: Where the pods run.
        hooks: All that will run; their time limits and the hard budget are the guards' hard limit.
        rules: The lease and the heartbeat.
        run: The run's id.
        warn: Told of each container that cannot guard (no shell, a read-only file system): there only the janitor
            and ``refloat thaw`` run the post-hook when refloat dies.
    """
    whole = sum((hook.command.timeout for hook in hooks), rules.hard_budget)
    asked = HoldRules.model_construct(**{**dict(rules), "soft_budget": whole, "hard_budget": whole})
    touched = {hook.pod.uid for hook in hooks if hook.phase == "pre"}
    posts = [hook for hook in hooks if hook.phase == "post" and hook.pod.uid in touched]
    with ExitStack() as stack:
        guards: list[Hold] = []
        for number, hook in enumerate(posts):
            try:
                part = planned(cluster, hook)
                guards.append(stack.enter_context(held(cluster, [part], asked, run=f"{run}-hook{number}")))
            except RefloatError as failure:
                warn(f"nothing guards the post-hook in {hook.pod.namespace}/{hook.pod.name}: {failure.message}")
        yield guards


def check(guards: Sequence[Hold]) -> None:
    """No guard has run a post-hook so far.

    Raises:
        QuiesceFailed: One has: what its pre-hook brought to rest went on before it should.
    """
    for guard in guards:
        for part in guard.parts:
            if part.state != "held":
                raise QuiesceFailed(
                    f"the post-hook in {part.planned.place} was run before the cut was over: {part.broken}",
                    pod=str(part.planned.place),
                )


def planned(cluster: Cluster, hook: PlannedHook) -> PlannedPart:
    """The guard of one post-hook.

    Raises:
        QuiesceFailed: The pod is gone.
    """
    pod = hook.pod
    place = Place(pod.namespace, pod.name, pod.uid, hook.container)
    before = look(cluster, place)
    if before is None or before.uid != pod.uid:
        raise QuiesceFailed(f"pod {place} went before its hooks ran", pod=str(place))
    return PlannedPart(place, script_of(hook), before, rank=0)


def script_of(hook: PlannedHook) -> HoldScript:
    """What the holder runs; the command goes as words, no shell is added to it."""
    seconds = max(timedelta(seconds=1), hook.command.timeout).seconds
    return HoldScript(
        engine="post-hook",
        method="runs the post-hook when refloat falls silent",
        stops_writes=False,
        ends_with="watchdog",
        functions=FUNCTIONS.replace("POST", join(hook.command.command)),
        thaw=NOTHING,
        confirm=NOTHING,
        settings={"seconds": str(seconds)},
    )
