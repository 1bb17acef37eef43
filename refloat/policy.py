"""The `ProtectionPolicy` document: where recovery points go, how often, for how long, and what may be missing."""

from __future__ import annotations

from datetime import timedelta
from fnmatch import fnmatchcase
from typing import Literal

from pydantic import Field, model_validator

from refloat.application import Document, ObjectRule
from refloat.duration import Duration
from refloat.values import Consistency

SCHEDULE_SHARE = 0.8
"""Share of the RPO between two runs: what is left pays for the run itself."""
SHORTEST_INTERVAL = timedelta(minutes=1)


class SecretRef(Document):
    """One key of a Kubernetes Secret in the protected cluster."""

    namespace: str
    name: str
    key: str = "password"


class PasswordSource(Document):
    """Where the vault password is read from; never the password itself. Exactly one field is set."""

    file: str | None = None
    env: str | None = None
    secret: SecretRef | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> PasswordSource:
        if sum(source is not None for source in (self.file, self.env, self.secret)) != 1:
            raise ValueError("give exactly one of file, env and secret")
        return self


class VaultLocation(Document):
    """A vault's address (``s3://bucket/prefix``, ``file:///path``) and where its password comes from.

    With a ``wrapper`` the password lies beside the vault, wrapped by that key service, and ``password`` is not used.
    """

    url: str = Field(pattern=r"^[a-z][a-z0-9+.-]*://.+")
    password: PasswordSource = PasswordSource(env="REFLOAT_PASSWORD")
    wrapper: str | None = Field(
        default=None,
        pattern=r"^[a-z][a-z0-9+.-]*://.+",
        description="Key wrapper: file:///key/file, passphrase://env/NAME, passphrase://file/path.",
    )


class Objectives(Document):
    """RPO (tolerated loss of data) and RTO (tolerated downtime)."""

    rpo: Duration = timedelta(hours=24)
    rto: Duration = timedelta(hours=1)


class Retention(Document):
    """How many recovery points to keep of each age; all zero keeps every point."""

    hourly: int = Field(default=0, ge=0)
    daily: int = Field(default=0, ge=0)
    weekly: int = Field(default=0, ge=0)
    monthly: int = Field(default=0, ge=0)
    yearly: int = Field(default=0, ge=0)


class DeclaredException(ObjectRule):
    """An absence the policy allows beforehand: it is recorded in every point, with its reason."""

    reason: str = Field(min_length=1)


class ProtectionPolicy(Document):
    """How one application is protected."""

    api_version: Literal["refloat/v1"] = Field(default="refloat/v1", alias="apiVersion")
    kind: Literal["ProtectionPolicy"] = "ProtectionPolicy"
    name: str = Field(pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")
    application: str | None = Field(default=None, description="Name of the Application it is for; default: any.")
    vault: VaultLocation
    objectives: Objectives = Objectives()
    schedule: str | None = Field(default=None, description="Cron text; default: every 80 % of the RPO.")
    retention: Retention = Retention()
    content_defined: tuple[str, ...] = Field(
        default=(),
        alias="contentDefined",
        description="Claims, as shell patterns, whose large files shift and do not change in place: dumps, logs, mail.",
    )
    exceptions: tuple[DeclaredException, ...] = ()
    accept: Consistency = Field(default=Consistency.CRASH, description="The lowest consistency label that is sealed.")

    def chunks_of(self, claim: str) -> Literal["fixed", "content-defined"]:
        """How large files of a claim are cut."""
        is_shifting = any(fnmatchcase(claim, pattern) for pattern in self.content_defined)
        return "content-defined" if is_shifting else "fixed"

    @property
    def interval(self) -> timedelta:
        """Time between two scheduled runs when no cron text is given, whole seconds."""
        share = timedelta(seconds=int(self.objectives.rpo.total_seconds() * SCHEDULE_SHARE))
        return max(SHORTEST_INTERVAL, share)
