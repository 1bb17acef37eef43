"""What is written down of a hold before the first freeze, on the application's lease, for whoever must let it go.

The record outlives the run: it holds, for every part, all that the thaw needs (`refloat/ports/quiescer.py`), and no
secret. Deadlines are kept twice, as an instant and as a duration: clocks may differ, durations do not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from shlex import join
from typing import Any

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from kube.held_part import PlannedPart
from kube.home import PART_OF
from kube.hooks import PlannedHook
from kube.marks import annotations_of, labels_of
from kube.node_agent import CONTAINER, NAMESPACE
from refloat.application import APPLICATION_LABEL, LABEL_PREFIX
from refloat.errors import InvalidDocument, QuiesceFailed

HOLD = f"{LABEL_PREFIX}/hold"
"""Annotation: the hold under way."""
THAWED = f"{LABEL_PREFIX}/thawed"
"""Annotation: what was let go for a run that did not do it, by whom, and when."""
ANNOTATIONS_BYTES = 256 << 10
"""Of keys and values of one object together (apimachinery, TotalAnnotationSizeLimitB)."""
SHOWN = 80
Object = Mapping[str, Any]


class HeldPlace(BaseModel):
    """One part of a hold: where it is, and the command that lets it go."""

    model_config = ConfigDict(frozen=True)

    namespace: str
    pod: str
    uid: str
    container: str
    engine: str
    part: str = ""
    thaw: tuple[str, ...]
    node: str = ""
    """The node whose agent runs the thaw; empty: the container itself does."""
    agent: str = ""
    """That agent's pod when the hold began; another may have taken its place."""

    @property
    def name(self) -> str:
        """``namespace/pod``, with the part where there is one."""
        return f"{self.namespace}/{self.pod}" + (f" ({self.part})" if self.part else "")

    @property
    def by_hand(self) -> str:
        """The command for a person."""
        if self.node:
            return f"kubectl exec -n {NAMESPACE} {self.agent} -c {CONTAINER} -- {join(self.thaw)}"
        return f"kubectl exec -n {self.namespace} {self.pod} -c {self.container} -- {join(self.thaw)}"

    @property
    def key(self) -> tuple[str, ...]:
        """What tells it from other parts of its hold."""
        return (self.uid, self.container, self.engine, self.part, *self.thaw)


class HoldRecord(BaseModel):
    """A hold that was begun. ``over_after`` is how long after ``recorded_at`` nothing of it may be held any more."""

    model_config = ConfigDict(frozen=True)

    run: str
    recorded_at: datetime
    deadline: datetime
    over_after: timedelta
    parts: tuple[HeldPlace, ...]


class Thawed(BaseModel):
    """What became of one part: ``thawed``, or why there was nothing to thaw."""

    model_config = ConfigDict(frozen=True)

    place: HeldPlace
    what: str
    by: str
    at: datetime


_THAWED = TypeAdapter(tuple[Thawed, ...])


def planned_record(run: str, parts: Sequence[PlannedPart], *, at: datetime, over_after: timedelta) -> HoldRecord:
    """The record of a hold that is about to begin."""
    places = tuple(
        HeldPlace(
            namespace=each.place.namespace,
            pod=each.place.pod,
            uid=each.place.uid,
            container=each.place.container,
            engine=each.script.engine,
            part=each.script.part,
            thaw=each.script.thaw,
            node=each.node,
            agent=each.agent.pod if each.agent else "",
        )
        for each in parts
    )
    return HoldRecord(run=run, recorded_at=at, deadline=at + over_after, over_after=over_after, parts=places)


def places_of(hooks: Sequence[PlannedHook]) -> tuple[HeldPlace, ...]:
    """The pods that pre-hooks bring to rest, each with the post-hooks that let it go, last first as a run would."""
    return tuple(
        HeldPlace(
            namespace=hook.pod.namespace,
            pod=hook.pod.name,
            uid=hook.pod.uid,
            container=hook.container,
            engine="post-hook",
            part=" ".join(hook.command.command)[:SHOWN],
            thaw=hook.command.command,
        )
        for hook in reversed(hooks)
        if hook.phase == "post"
    )


def check_size(lease: Object, text: str) -> None:
    """Whether the record, and later what became of every part, fits into the lease's annotations.

    Raises:
        QuiesceFailed: It does not.
    """
    others = {key: value for key, value in annotations_of(lease).items() if key not in (HOLD, THAWED)}
    taken = sum(len(key.encode()) + len(value.encode()) for key, value in others.items())
    size_bytes = taken + 3 * len(text.encode()) + 200
    if size_bytes > ANNOTATIONS_BYTES:
        raise QuiesceFailed(
            f"the record of the hold needs {size_bytes} bytes; annotations of a lease may have {ANNOTATIONS_BYTES}",
            guidance="Split the application: nothing was frozen, for nobody else could let go what is not on record.",
        )


def application_of(lease: Object) -> str:
    """The application a lease is of."""
    return str(labels_of(lease).get(APPLICATION_LABEL, lease["metadata"]["name"]))


def labels_of_application(application: str) -> dict[str, str]:
    """The labels of its lease: no run's, so that no sweep takes it."""
    return {**PART_OF, APPLICATION_LABEL: application}


def record_of(lease: Object) -> HoldRecord | None:
    """The hold recorded on a lease, or None.

    Raises:
        InvalidDocument: Somebody wrote something else there.
    """
    text = annotations_of(lease).get(HOLD)
    if text is None:
        return None
    try:
        return HoldRecord.model_validate_json(text)
    except ValidationError as wrong:
        raise InvalidDocument(
            f"annotation {HOLD} of lease {lease['metadata']['name']} holds no hold: {wrong.error_count()} errors",
            guidance="See by hand whether something is frozen, then remove the annotation.",
        ) from wrong


def thawed_of(lease: Object) -> tuple[Thawed, ...]:
    """What was let go of the hold on a lease; what cannot be read counts as nothing: a thaw may be done twice."""
    try:
        return _THAWED.validate_json(annotations_of(lease).get(THAWED, "[]"))
    except ValidationError:
        return ()


def text_of(thawed: Sequence[Thawed]) -> str:
    """For the annotation."""
    return _THAWED.dump_json(tuple(thawed)).decode()
