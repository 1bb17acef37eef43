"""The one error tree: every failure refloat can name, with its code, guidance, retry class and exit code.

    RefloatError
    ├─ ConfigError             the operator edits something             never   10
    │   └─ InvalidDocument · UnknownProvider · MissingKey
    ├─ ProviderError           storage or snapshot system
    │   ├─ Transient           Throttled · Unavailable · TimedOut       later   20
    │   └─ Permanent           NotFound · AlreadyExists · AccessDenied ·
    │                          RangeNotSatisfiable · Immutable ·
    │                          Unsupported · StoreFull                  never   21
    ├─ ClusterError            Unreachable (later) · Forbidden · Conflict (now) ·
    │                          Expired (now) · ObjectMissing · ObjectExists · Rejected ·
    │                          NotReady · EmptySelection                        30
    ├─ VaultError
    │   ├─ VaultMissing 40 · WrongKey 41 · LeaseHeld (later) 42 · UnsupportedFormat 43 ·
    │   │  NotAVault 44 · TransferFailed (later) 45 · ClocksDisagree 46
    │   └─ IntegrityError      data is not what was sealed              never   49
    ├─ ConsistencyError
    │   └─ QuiesceFailed 50 · ThawUnconfirmed 51 · SnapshotFailed 52 · ConsistencyTooLow 53
    ├─ RecoveryError
    │   └─ NoEligibleRecoveryPoint 60 · PlanBlocked 61 · FenceUnconfirmed 62 ·
    │      ProbeFailed 63 · ObjectiveMissed 64 · ApprovalMissing 65
    └─ Interrupted             cancelled on purpose                     never  130

The axis is *who must act, and does waiting help?* Foreign exceptions are translated in one function per
client and stay chained; nothing else catches them. Text is for people, ``code`` is for machines.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from typing import Any, ClassVar


class Retry(Enum):
    """Whether the same call may succeed later without anybody acting."""

    NEVER = "never"
    LATER = "later"
    NOW = "now"


class RefloatError(Exception):
    """A failure with a name. ``context`` holds names and numbers only, never a secret.

    Args:
        message: One sentence: what did not happen, and why.
        guidance: What to do about it; the class's own sentence when omitted.
        **context: Names that identify the thing (namespace, claim, key, …).
    """

    code: ClassVar[str] = "REFLOAT"
    default_guidance: ClassVar[str] = "Run again with --verbose and read the cause."
    retry: ClassVar[Retry] = Retry.NEVER
    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, guidance: str | None = None, **context: Any) -> None:
        super().__init__(message)
        self.message = message
        self.guidance = guidance or self.default_guidance
        self.context = {name: value for name, value in context.items() if value is not None}

    def as_json(self) -> dict[str, Any]:
        """The error as scripts and movers read it: code, message, guidance, context, retry, exit_code."""
        return {
            "code": self.code,
            "message": self.message,
            "guidance": self.guidance,
            "context": {name: str(value) for name, value in self.context.items()},
            "retry": self.retry.value,
            "exit_code": self.exit_code,
        }


class ConfigError(RefloatError):
    """A document, flag or environment variable is wrong."""

    code = "CONFIG"
    default_guidance = "Correct the document or the flag and run again."
    exit_code = 10


class InvalidDocument(ConfigError):
    """A document does not say what it must, or says something refloat does not know."""

    code = "INVALID-DOCUMENT"
    default_guidance = "Correct the field named above; docs/users.md lists every field."


class UnknownProvider(ConfigError):
    """No installed provider answers to this name."""

    code = "UNKNOWN-PROVIDER"
    default_guidance = "Use one of the installed providers named above, or install the package that brings it."


class MissingKey(ConfigError):
    """No vault password was given; there is no default one."""

    code = "MISSING-KEY"
    default_guidance = (
        "Give the vault password: --password-file FILE, REFLOAT_PASSWORD, or --password-secret NAMESPACE/NAME[/KEY]."
    )


class ProviderError(RefloatError):
    """An object store or snapshot system answered with a failure."""

    code = "PROVIDER"
    exit_code = 21


class Transient(ProviderError):
    """A passing fault of a provider: the same call may succeed later."""

    code = "TRANSIENT"
    default_guidance = "Wait a little and run again; nothing was lost."
    retry = Retry.LATER
    exit_code = 20


class Throttled(Transient):
    """The provider asked for fewer requests."""

    code = "THROTTLED"


class Unavailable(Transient):
    """The provider could not be reached or answered with an internal error."""

    code = "UNAVAILABLE"
    default_guidance = "Check that the endpoint is up and reachable from here and from the cluster, then run again."


class TimedOut(Transient):
    """No answer within the time limit."""

    code = "TIMED-OUT"


class Permanent(ProviderError):
    """A refusal that waiting does not cure."""

    code = "PERMANENT"


class NotFound(Permanent):
    """The key, bucket or volume snapshot does not exist."""

    code = "NOT-FOUND"
    default_guidance = "Check the name; refloat creates no bucket."


class AlreadyExists(Permanent):
    """Create-if-absent found the key present; nothing was changed."""

    code = "ALREADY-EXISTS"
    default_guidance = "Nothing was overwritten; choose another name."


class AccessDenied(Permanent):
    """The credentials do not allow the call."""

    code = "ACCESS-DENIED"
    default_guidance = "Check the credentials and what they may do: get, put and list on the prefix, delete on locks/."


class RangeNotSatisfiable(Permanent):
    """Fewer bytes exist than were asked for."""

    code = "RANGE"
    default_guidance = "The stored object is shorter than recorded: run refloat verify on the vault."


class Immutable(Permanent):
    """The object is under retention and cannot be removed or replaced yet."""

    code = "IMMUTABLE"
    default_guidance = "Wait until the retention date of the object has passed."


class Unsupported(Permanent):
    """The provider cannot do this at all."""

    code = "UNSUPPORTED"
    default_guidance = "Choose a provider, class or volume mode that supports it."


class StoreFull(Permanent):
    """The store has no room left for what was to be written."""

    code = "STORE-FULL"
    default_guidance = "Free room in the store or raise its quota, then run again; what was stored is reused."


class ClusterError(RefloatError):
    """The Kubernetes API refused or could not answer."""

    code = "CLUSTER"
    exit_code = 30


class Unreachable(ClusterError):
    """The API server does not answer."""

    code = "UNREACHABLE"
    default_guidance = "Check --kubeconfig and --context, and that the API server is reachable."
    retry = Retry.LATER


class Forbidden(ClusterError):
    """The identity in use lacks a right; the message names verb and kind."""

    code = "FORBIDDEN"
    default_guidance = "Grant the right named above (deployments/manifests/ holds the roles refloat needs)."


class Conflict(ClusterError):
    """Somebody else changed the object in between."""

    code = "CONFLICT"
    default_guidance = "Run again: the object changed while refloat was writing it."
    retry = Retry.NOW


class Expired(ClusterError):
    """A list token or a resource version is too old (HTTP 410): the caller starts over."""

    code = "EXPIRED"
    default_guidance = "Run again: the cluster changed faster than it could be read."
    retry = Retry.NOW


class ObjectMissing(ClusterError):
    """A named object, namespace, context or class does not exist in the cluster."""

    code = "OBJECT-MISSING"
    default_guidance = "Check the name and the --context it is looked up in."


class ObjectExists(ClusterError):
    """An object of this name exists already; nothing was overwritten."""

    code = "OBJECT-EXISTS"
    default_guidance = "Recover into another namespace, or remove the object first."


class Rejected(ClusterError):
    """The API server judged the object invalid or an admission policy refused it."""

    code = "REJECTED"
    default_guidance = "Read the API server's reason above and correct the object or the policy."


class NotReady(ClusterError):
    """Something did not become ready within its time; the message names it and why."""

    code = "NOT-READY"
    default_guidance = "Look at the object named above (kubectl describe), then run again: nothing is done twice."
    retry = Retry.LATER


class EmptySelection(ClusterError):
    """The selector matches nothing; protecting nothing is never a success."""

    code = "EMPTY-SELECTION"
    default_guidance = "Check namespace and selector; refloat discover shows what they select."


class VaultError(RefloatError):
    """The vault cannot be used as it is."""

    code = "VAULT"
    exit_code = 40


class VaultMissing(VaultError):
    """There is no vault under this address."""

    code = "VAULT-MISSING"
    default_guidance = "Check the vault's address; refloat protect creates a vault where there is none."
    exit_code = 40


class WrongKey(VaultError):
    """No key slot of the vault opens with this password."""

    code = "WRONG-KEY"
    default_guidance = "Give the password the vault was made with; nothing was changed."
    exit_code = 41


class LeaseHeld(VaultError):
    """Another client holds a vault lock that conflicts, or another run has the application."""

    code = "LEASE-HELD"
    default_guidance = "Wait for the other run to end, or look with refloat vault unlock whether that run is dead."
    retry = Retry.LATER
    exit_code = 42


class UnsupportedFormat(VaultError):
    """The vault is of a format version refloat does not write."""

    code = "UNSUPPORTED-FORMAT"
    default_guidance = "Use a vault of restic format version 2 (restic migrate upgrade_repo_v2 converts version 1)."
    exit_code = 43


class NotAVault(VaultError):
    """Something else than a vault lives under this address."""

    code = "NOT-A-VAULT"
    default_guidance = "Give an empty prefix or an existing vault; refloat writes into nothing it does not know."
    exit_code = 44


class TransferFailed(VaultError):
    """A mover ended without a result."""

    code = "TRANSFER-FAILED"
    default_guidance = "Read the mover's last words above; run again, what was stored is reused."
    retry = Retry.LATER
    exit_code = 45


class ClocksDisagree(VaultError):
    """Clocks differ by more than can be ignored where something would be deleted on their word."""

    code = "CLOCKS-DISAGREE"
    default_guidance = "Set the clock that is wrong (NTP), then run again; nothing was deleted."
    exit_code = 46


class IntegrityError(VaultError):
    """Stored data is not what was sealed. Never retried, never downgraded."""

    code = "INTEGRITY"
    default_guidance = "Do not prune. Choose another recovery point or another copy, and run restic check --read-data."
    exit_code = 49


class ConsistencyError(RefloatError):
    """The application could not be brought to, held at, or let go from a common instant."""

    code = "CONSISTENCY"
    exit_code = 50


class QuiesceFailed(ConsistencyError):
    """A pre-hook or post-hook failed or ran out of time."""

    code = "QUIESCE-FAILED"
    default_guidance = "Correct the hook named above or give it more time; nothing was sealed."
    exit_code = 50


class ThawUnconfirmed(ConsistencyError):
    """A post-hook failed: the pod may still be quiesced."""

    code = "THAW-UNCONFIRMED"
    default_guidance = "Act now: run the post-hook of the pod named above by hand and see that it accepts writes."
    exit_code = 51


class SnapshotFailed(ConsistencyError):
    """A volume snapshot was not cut, or did not become ready."""

    code = "SNAPSHOT-FAILED"
    default_guidance = "Read the driver's reason above; the application was let go and nothing was sealed."
    exit_code = 52


class ConsistencyTooLow(ConsistencyError):
    """The point would carry a lower consistency label than the policy accepts."""

    code = "CONSISTENCY-TOO-LOW"
    default_guidance = "Give the driver a group snapshot class, or accept the lower label with --accept LABEL."
    exit_code = 53


class RecoveryError(RefloatError):
    """The application could not be brought back as asked."""

    code = "RECOVERY"
    exit_code = 60
    evidence: object = None
    """A drill's `refloat.drill.DrillReport`, for whoever tells the failure; never part of its text."""


class NoEligibleRecoveryPoint(RecoveryError):
    """No sealed recovery point meets the objective."""

    code = "NO-RECOVERY-POINT"
    default_guidance = "List what there is with refloat points and choose one."
    exit_code = 60


class PlanBlocked(RecoveryError):
    """The recovery plan has blockers; nothing was created."""

    code = "PLAN-BLOCKED"
    default_guidance = "Remove the blockers listed above (refloat plan shows them), then run again."
    exit_code = 61


class FenceUnconfirmed(RecoveryError):
    """The old site may still write."""

    code = "FENCE-UNCONFIRMED"
    exit_code = 62


class ProbeFailed(RecoveryError):
    """The recovered application does not answer correctly."""

    code = "PROBE-FAILED"
    default_guidance = "Look at the workload named above; run the recovery again once its cause is gone."
    exit_code = 63


class ObjectiveMissed(RecoveryError):
    """Recovered, but outside RPO or RTO."""

    code = "OBJECTIVE-MISSED"
    exit_code = 64


class ApprovalMissing(RecoveryError):
    """Nobody said yes to the plan."""

    code = "APPROVAL-MISSING"
    default_guidance = "Look at the plan and answer yes, or give --yes."
    exit_code = 65


class DrillFailed(RecoveryError):
    """The drill's recovery, or an assertion on it, failed; the production application was not touched."""

    code = "DRILL-FAILED"
    default_guidance = "Read the report's failed steps; a recovery in earnest would fail in the same way."
    exit_code = 66


class Interrupted(RefloatError):
    """Cancelled on purpose."""

    code = "INTERRUPTED"
    default_guidance = "Run again when you wish; what the run created was removed."
    exit_code = 130


def tree(root: type[RefloatError] = RefloatError) -> Iterator[type[RefloatError]]:
    """Every class of the tree, root first."""
    yield root
    for child in root.__subclasses__():
        yield from tree(child)


def from_json(value: dict[str, Any]) -> RefloatError:
    """Rebuild the error a mover reported, as the class its code names (``RefloatError`` for a code unknown here)."""
    by_code = {cls.code: cls for cls in tree()}
    cls = by_code.get(str(value.get("code")), RefloatError)
    context = {k: v for k, v in dict(value.get("context") or {}).items() if k not in ("message", "guidance")}
    return cls(str(value.get("message", "no message")), guidance=value.get("guidance"), **context)
