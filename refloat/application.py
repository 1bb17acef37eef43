"""The `Application` document: what is protected and recovered as one, and how its pods are brought to rest."""

from __future__ import annotations

import re
from datetime import timedelta
from fnmatch import fnmatchcase
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from refloat.duration import Duration

LABEL_PREFIX = "refloat.io"
"""Prefix of every label and annotation refloat writes."""
RUN_LABEL = f"{LABEL_PREFIX}/run"
"""Label of everything a run creates: the run's id."""
APPLICATION_LABEL = f"{LABEL_PREFIX}/application"
MAX_HOOK = timedelta(minutes=10)
MAX_HOLD = timedelta(minutes=5)


class Document(BaseModel):
    """Base of everything a person writes: frozen, and an unknown field is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class ObjectRule(Document):
    """Chooses objects by kind and name; both are shell patterns, and kind may carry its group (``Deployment.apps``)."""

    kind: str = "*"
    name: str = "*"

    def matches(self, kind: str, name: str) -> bool:
        """Whether an object of this kind (``Deployment.apps``, ``Pod``) and name is meant."""
        bare = kind.partition(".")[0]
        return (fnmatchcase(kind, self.kind) or fnmatchcase(bare, self.kind)) and fnmatchcase(name, self.name)


class Member(Document):
    """One rule of membership: the objects of a namespace that a label selector, includes and excludes choose.

    ``include`` empty means every kind. What the chosen objects refer to (claims, Secrets, …) belongs as well,
    unless an exclude names it.
    """

    namespace: str = Field(min_length=1)
    selector: str = Field(default="", description="Kubernetes label selector, for example app=pg,tier!=cache.")
    include: tuple[ObjectRule, ...] = ()
    exclude: tuple[ObjectRule, ...] = ()


class HookCommand(Document):
    """A command run in a container; it has no shell of its own unless it names one."""

    command: tuple[str, ...] = Field(min_length=1)
    timeout: Duration = Field(default=timedelta(seconds=30), description="Hard limit; at most 10m.")
    on_error: Literal["fail", "continue"] = "fail"

    @field_validator("timeout")
    @classmethod
    def _bounded(cls, value: timedelta) -> timedelta:
        if not timedelta(0) < value <= MAX_HOOK:
            raise ValueError("a hook's timeout is more than 0 and at most 10m")
        return value


class Hook(Document):
    """Commands before and after the cut, in the pods that ``selector`` chooses among the application's."""

    namespace: str | None = Field(default=None, description="Default: every namespace of the application.")
    selector: str = ""
    container: str | None = Field(default=None, description="Default: the pod's first container.")
    pre: HookCommand | None = None
    post: HookCommand | None = None

    @model_validator(mode="after")
    def _not_empty(self) -> Hook:
        if self.pre is None and self.post is None:
            raise ValueError("a hook needs pre, post or both")
        return self


class Quiesce(Document):
    """How the pods that ``selector`` chooses are held, where their image does not tell or tells wrongly."""

    namespace: str | None = Field(default=None, description="Default: every namespace of the application.")
    selector: str = ""
    container: str | None = Field(
        default=None, description="Default: the first whose image is recognised, or the first."
    )
    engine: str = Field(min_length=1, description="A quiescer's name, or none: these pods are not held.")
    options: dict[str, str] = Field(default_factory=dict)


class HoldRules(Document):
    """When the application is held, for how long at most, and in which order it is frozen."""

    mode: Literal["auto", "always", "never"] = Field(
        default="auto", description="auto: not where one atomic cut of one engine is enough by itself."
    )
    soft_budget: Duration = Field(default=timedelta(seconds=10), alias="softBudget")
    hard_budget: Duration = Field(default=timedelta(seconds=30), alias="hardBudget")
    lease: Duration = Field(default=timedelta(seconds=10), description="Silence after which every pod thaws by itself.")
    heartbeat: Duration = timedelta(seconds=1)
    order: tuple[str, ...] = Field(
        default=(), description="Label selectors in freezing order; pods that none chooses come last, by default order."
    )
    allow_inconsistent: bool = Field(
        default=False, alias="allowInconsistent", description="Seal a point although its certificate says inconsistent."
    )

    @model_validator(mode="after")
    def _in_order(self) -> HoldRules:
        second = timedelta(seconds=1)
        if not second <= self.soft_budget <= self.hard_budget <= MAX_HOLD:
            raise ValueError(f"softBudget is at least 1s, hardBudget no less and at most {MAX_HOLD.seconds}s")
        if not 3 * second <= self.lease <= self.hard_budget:
            raise ValueError("lease is at least 3s and no longer than hardBudget")
        if not timedelta(milliseconds=100) <= self.heartbeat <= self.lease / 3:
            raise ValueError("heartbeat is at least 100ms and at most a third of the lease")
        return self


class Assertion(Document):
    """Something that must be true of a recovered application: a command in one of its pods succeeds."""

    name: str = Field(min_length=1, max_length=63)
    namespace: str | None = Field(default=None, description="Its own, before the drill renames it; default: any.")
    selector: str = ""
    container: str | None = Field(default=None, description="Default: the pod's first container.")
    command: tuple[str, ...] = Field(min_length=1, description="No shell is added. It must end with 0.")
    expect: str | None = Field(default=None, description="A regular expression its standard output must contain.")
    timeout: Duration = Field(default=timedelta(seconds=30), description="Hard limit; at most 10m.")

    @field_validator("timeout")
    @classmethod
    def _bounded(cls, value: timedelta) -> timedelta:
        if not timedelta(0) < value <= MAX_HOOK:
            raise ValueError("an assertion's timeout is more than 0 and at most 10m")
        return value

    @field_validator("expect")
    @classmethod
    def _is_expression(cls, value: str | None) -> str | None:
        try:
            re.compile(value or "")
        except re.error as wrong:
            raise ValueError(f"expect is no regular expression: {wrong}") from wrong
        return value


class DrillRules(Document):
    """What a drill asks of the recovered application, and how often it is held."""

    assertions: tuple[Assertion, ...] = ()
    schedule: str = Field(default="0 3 1 1,4,7,10 *", description="Cron text; default: once a quarter, at night.")


class Application(Document):
    """What is protected as one unit. Names are DNS labels, as Kubernetes' own."""

    api_version: Literal["refloat/v1"] = Field(default="refloat/v1", alias="apiVersion")
    kind: Literal["Application"] = "Application"
    name: str = Field(pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")
    members: tuple[Member, ...] = Field(min_length=1)
    hooks: tuple[Hook, ...] = ()
    quiesce: tuple[Quiesce, ...] = ()
    hold: HoldRules = HoldRules()
    drill: DrillRules = DrillRules()

    @property
    def namespaces(self) -> tuple[str, ...]:
        """The namespaces of all members, in order, each once."""
        return tuple(dict.fromkeys(member.namespace for member in self.members))
