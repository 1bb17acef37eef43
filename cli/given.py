"""From the words of a command line to values: application, policy, vault, cluster, objective, mappings."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from pydantic import ValidationError

from blocks.documents import Documents, closest, explain, load_documents
from refloat.application import Application, Document, Member, ObjectRule
from refloat.clock import now
from refloat.duration import parse_duration
from refloat.errors import ConfigError
from refloat.plan import Mappings, Objective
from refloat.policy import Objectives, PasswordSource, ProtectionPolicy, SecretRef, VaultLocation
from refloat.recovery_point import RecoveryPoint
from refloat.target import ClusterRef
from refloat.values import Consistency

VAULT = "REFLOAT_VAULT"
WRAPPER = "REFLOAT_WRAPPER"
D = TypeVar("D", bound=Document)


@dataclass(frozen=True)
class Selection:
    """Which application is meant: by documents, by blocks, or by flags."""

    name: str | None
    namespaces: Sequence[str] | None = None
    selector: str = ""
    include: Sequence[str] | None = None
    exclude: Sequence[str] | None = None
    file: str | None = None
    block: str | None = None

    def __post_init__(self) -> None:
        by_flags = self.namespaces or self.selector or self.include or self.exclude
        given = [text for text, is_given in (("--file", self.file), ("--block", self.block), ("flags", by_flags))
                 if is_given]  # fmt: skip
        if len(given) > 1:
            raise ConfigError(f"the application is chosen by {' and by '.join(given)}: give one of them")
        if by_flags and not self.namespaces:
            raise ConfigError(
                "--selector, --include and --exclude choose among a namespace's objects: give --namespace"
            )


@dataclass(frozen=True)
class Vaulting:
    """Where points go and how often, as flags say it; each None leaves it to the document or the default."""

    url: str | None = None
    password_file: str | None = None
    password_secret: str | None = None
    accept: str | None = None
    rpo: str | None = None
    rto: str | None = None
    wrapper: str | None = None

    def password(self) -> PasswordSource | None:
        """The source the flags name; None when they name none."""
        if self.password_file and self.password_secret:
            raise ConfigError("--password-file and --password-secret are both given: give one of them")
        if self.password_file:
            return PasswordSource(file=self.password_file)
        if self.password_secret:
            parts = self.password_secret.split("/")
            if len(parts) not in (2, 3) or not all(parts):
                raise ConfigError(
                    f"--password-secret {self.password_secret!r} is not NAMESPACE/NAME or NAMESPACE/NAME/KEY"
                )
            return PasswordSource(secret=SecretRef(**dict(zip(("namespace", "name", "key"), parts, strict=False))))
        return None

    def location(self, documented: VaultLocation | None) -> VaultLocation:
        """The vault: the flags', else the document's, else the one of ``REFLOAT_VAULT``.

        Raises:
            ConfigError: None of them names one.
        """
        url = self.url or (documented.url if documented else os.environ.get(VAULT))
        if not url:
            raise ConfigError(
                "no vault is given",
                guidance=f"Give --vault URL, set {VAULT}, or name it in a policy document (--file).",
            )
        same = documented if documented and documented.url == url else None
        fields = {"url": url, **self.opened_by(same)}
        return checked(VaultLocation, fields, "--vault" if self.url else VAULT)

    def opened_by(self, documented: VaultLocation | None) -> dict[str, object]:
        """How the vault is opened: as the flags say, else as the document does, else by ``REFLOAT_WRAPPER``."""
        password = self.password()
        if password and self.wrapper:
            raise ConfigError("a wrapper and a password are both given: give one of them")
        if password or self.wrapper:
            return {"password": password} if password else {"wrapper": self.wrapper}
        if documented and documented.model_fields_set & {"password", "wrapper"}:
            return {"password": documented.password, "wrapper": documented.wrapper}
        return {"wrapper": os.environ.get(WRAPPER) or None}

    def policy(self, application: str, documented: ProtectionPolicy | None) -> ProtectionPolicy:
        """The document's policy with what the flags change, or one made of flags and defaults."""
        policy = documented or ProtectionPolicy(
            name=application, application=application, vault=self.location(documented=None)
        )
        times = {"rpo": self.rpo, "rto": self.rto}
        objectives = {name: duration(text, f"--{name}") for name, text in times.items() if text}
        changes: dict[str, object] = {"vault": self.location(policy.vault)}
        if objectives:
            changes["objectives"] = Objectives.model_validate({**dict(policy.objectives), **objectives})
        if self.accept:
            changes["accept"] = label(self.accept)
        return policy.model_copy(update=changes)


def checked(model: type[D], fields: Mapping[str, object], where: str) -> D:
    """A document made of flags; ``ConfigError`` names the flags."""
    try:
        return model.model_validate(dict(fields))
    except ValidationError as wrong:
        raise ConfigError(f"{where}: {explain(wrong, model)}") from wrong


def rules(texts: Sequence[str] | None) -> tuple[ObjectRule, ...]:
    """``KIND[/NAME]`` each."""
    found = []
    for text in texts or ():
        kind, _, name = text.partition("/")
        found.append(ObjectRule(kind=kind or "*", name=name or "*"))
    return tuple(found)


def ad_hoc(selection: Selection) -> Application:
    """The application that flags describe."""
    namespaces = list(selection.namespaces or ())
    name = selection.name or (namespaces[0] if len(namespaces) == 1 else None)
    if name is None:
        raise ConfigError(f"an application in {len(namespaces)} namespaces needs a name", guidance="Give NAME first.")
    include, exclude = rules(selection.include), rules(selection.exclude)
    members = tuple(
        Member(namespace=each, selector=selection.selector, include=include, exclude=exclude)
        for each in dict.fromkeys(namespaces)
    )
    return checked(Application, {"name": name, "members": members}, "NAME and --namespace")


def documents(
    selection: Selection, load_blocks: Callable[[str], Documents], *, name_is_block: bool = False
) -> Documents | None:
    """The documents of a file or of blocks; None when flags describe everything, or only a name is given.

    With ``name_is_block`` a name alone is that of saved documents.
    """
    if selection.file:
        return load_documents(selection.file)
    if selection.block:
        return load_blocks(selection.block)
    if name_is_block and selection.name and not selection.namespaces:
        return load_blocks(selection.name)
    return None


def application(selection: Selection, found: Documents | None) -> Application:
    """The application itself, from documents or flags.

    Raises:
        ConfigError: Nothing says which.
    """
    if found is not None:
        return found.application(selection.name)
    if not selection.namespaces:
        said = f"nothing says what application {selection.name} is" if selection.name else "no application is given"
        raise ConfigError(said, guidance="Give --namespace NS, --file FILE, or --block NAME.")
    return ad_hoc(selection)


def application_name(selection: Selection, found: Documents | None) -> str:
    """The name under which a vault knows the application."""
    if selection.name:
        return selection.name
    if found is not None and found.applications:
        return found.application().name
    if selection.namespaces and len(selection.namespaces) == 1:
        return selection.namespaces[0]
    raise ConfigError("no application is named", guidance="Give its NAME; refloat points shows what the vault holds.")


def documented_vault(found: Documents | None, name: str | None) -> VaultLocation | None:
    """The vault a document names for an application (or, without a name, the only policy's)."""
    if found is None:
        return None
    policy = found.policy(name) if name else found.policies[0] if len(found.policies) == 1 else None
    return policy.vault if policy else None


def target(
    kubeconfig: str | None, context: str | None, to_kubeconfig: str | None = None, to_context: str | None = None
) -> ClusterRef:
    """The cluster meant; a target given apart goes before."""
    if to_kubeconfig:
        return ClusterRef(kubeconfig=to_kubeconfig, context=to_context)
    return ClusterRef(kubeconfig=kubeconfig, context=to_context or context)


def duration(text: str, flag: str) -> timedelta:
    """A flag's duration."""
    try:
        found = parse_duration(text)
    except ValueError as wrong:
        raise ConfigError(f"{flag}: {wrong}") from wrong
    if not isinstance(found, timedelta) or found <= timedelta(0):
        raise ConfigError(f"{flag}: a duration is more than 0")
    return found


def label(text: str) -> Consistency:
    """A consistency label by its name."""
    names = {each.value: each for each in Consistency}
    if text not in names:
        raise ConfigError(f"--accept {text!r} is no consistency label{closest(text, names)}")
    return names[text]


def objective(point: str | None, at: str | None) -> Objective:
    """Which point is asked for. A time without a zone is UTC, as ``refloat points`` shows it."""
    return Objective(point=point, at=instant(at) if at else None)


def instant(text: str) -> datetime:
    """``2026-11-24T09:41[Z]`` or ``2h ago``."""
    words = text.strip()
    if words.endswith("ago"):
        return now() - duration(words.removesuffix("ago").strip(), "--at")
    try:
        found = datetime.fromisoformat(words)
    except ValueError as wrong:
        raise ConfigError(
            f"--at {text!r} is no time", guidance="Write for example 2026-11-24T09:41 (UTC) or '2h ago'."
        ) from wrong
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def pairs(texts: Sequence[str] | None, flag: str) -> dict[str, str]:
    """``OLD=NEW`` each."""
    found: dict[str, str] = {}
    for text in texts or ():
        old, _, new = text.partition("=")
        if not old or not new:
            raise ConfigError(f"{flag} {text!r} is not OLD=NEW")
        if found.setdefault(old, new) != new:
            raise ConfigError(f"{flag} gives {old} two new names: {found[old]} and {new}")
    return found


def mappings(
    point: RecoveryPoint, to_namespace: str | None, namespaces: Sequence[str] | None, classes: Sequence[str] | None
) -> Mappings:
    """The new names for a point; one that names nothing of it is an error, since it would silently do nothing.

    Raises:
        ConfigError: ``--to-namespace`` for a point of several namespaces, or an OLD that the point does not hold.
    """
    renamed, storage = pairs(namespaces, "--map-namespace"), pairs(classes, "--storage-class")
    known = namespaces_of(point)
    if to_namespace:
        if renamed or len(known) != 1:
            reason = "--map-namespace is given too" if renamed else f"the point holds {', '.join(known)}"
            raise ConfigError(
                f"--to-namespace is for one namespace: {reason}", guidance="Give --map-namespace OLD=NEW."
            )
        renamed = {known[0]: to_namespace}
    for flag, olds, held in (
        ("--map-namespace", renamed, known),
        ("--storage-class", storage, sorted({each.storage_class for each in point.volumes if each.storage_class})),
    ):
        for old in olds:
            if old not in held:
                raise ConfigError(f"{flag}: the point holds no {old}; it holds: {', '.join(held) or 'none'}")
    return Mappings(namespaces=renamed, storage_classes=storage)


def namespaces_of(point: RecoveryPoint) -> list[str]:
    """The namespaces a point's objects and volumes are of."""
    held = {each.ref.namespace or (each.ref.name if each.ref.kind == "Namespace" else "") for each in point.objects}
    return sorted((held | {volume.namespace for volume in point.volumes}) - {""})
