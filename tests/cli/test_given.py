"""From flags to values: what goes before what, and what is refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from cli import given
from refloat.errors import ConfigError
from refloat.plan import Mappings
from refloat.policy import PasswordSource, ProtectionPolicy, VaultLocation
from refloat.recovery_point import ObjectCopy, ObjectRef, RecoveryPoint, VolumeCopy
from refloat.values import Consistency

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
DOCUMENTED = ProtectionPolicy(
    name="daily", vault=VaultLocation(url="s3://documented/vault", password=PasswordSource(file="/etc/documented"))
)


def test_an_application_ad_hoc() -> None:
    """Its name is the namespace's unless another is given; includes and excludes are kinds with names."""
    selection = given.Selection(None, ["shop"], "app=db", ["StatefulSet", "Secret/db-*"], ["*/tmp"])
    made = given.application(selection, None)
    assert (made.name, made.namespaces, made.members[0].selector) == ("shop", ("shop",), "app=db")
    assert [(rule.kind, rule.name) for rule in made.members[0].include] == [("StatefulSet", "*"), ("Secret", "db-*")]
    assert [(rule.kind, rule.name) for rule in made.members[0].exclude] == [("*", "tmp")]
    assert given.application(given.Selection("both", ["a", "b", "a"]), None).namespaces == ("a", "b")


def test_flags_go_before_documents_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """For the vault; and a document's password is not used for another vault."""
    monkeypatch.setenv("REFLOAT_VAULT", "s3://environment/vault")
    flags = given.Vaulting("s3://flag/vault")
    assert flags.location(DOCUMENTED.vault).url == "s3://flag/vault"
    assert flags.location(DOCUMENTED.vault).password == PasswordSource(env="REFLOAT_PASSWORD")
    assert given.Vaulting().location(DOCUMENTED.vault) == DOCUMENTED.vault
    assert given.Vaulting().location(None).url == "s3://environment/vault"
    by_file = given.Vaulting(password_file="/etc/flag").location(DOCUMENTED.vault)
    assert (by_file.url, by_file.password.file) == ("s3://documented/vault", "/etc/flag")
    secret = given.Vaulting("s3://flag/vault", password_secret="ops/vault").location(None).password.secret
    assert secret is not None
    assert (secret.namespace, secret.name, secret.key) == ("ops", "vault", "password")


def test_flags_change_a_documented_policy_and_nothing_else() -> None:
    """One objective, the label; the rest stays."""
    changed = given.Vaulting(rpo="2h", accept="inconsistent").policy("shop", DOCUMENTED)
    assert changed.objectives.rpo == timedelta(hours=2)
    assert changed.objectives.rto == DOCUMENTED.objectives.rto
    assert changed.accept is Consistency.INCONSISTENT
    assert changed.vault == DOCUMENTED.vault


def test_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a zone a time is UTC, as it is shown; and so long ago."""
    assert given.objective(None, "2026-01-01T12:00").at == NOON
    assert given.objective(None, "2026-01-01 13:00+01:00").at == NOON
    ago = given.objective(None, "2h ago").at
    assert ago is not None
    assert timedelta(hours=2) <= datetime.now(UTC) - ago < timedelta(hours=2, minutes=1)


def point(*namespaces: str) -> RecoveryPoint:
    """A point of objects and a volume in these namespaces."""
    return RecoveryPoint(
        id="0" * 16, application="shop", cluster="c", run="0" * 16, started_at=NOON, cut_at=NOON, sealed_at=NOON,
        consistency=Consistency.CRASH, cut_method="volume-snapshots", refloat_version="0",
        objects=tuple(
            ObjectCopy(ref=ObjectRef(kind="Secret", namespace=each, name="x"), api_version="v1", path="p", reason="r")
            for each in namespaces
        ),
        volumes=(
            VolumeCopy(namespace=namespaces[0], claim="data", tree="a" * 64, path="v", storage_class="fast", driver="d",
                       requested_bytes=1, files=1, data_bytes=1, added_bytes=1, cut_at=NOON),
        ),
    )  # fmt: skip


def test_mappings() -> None:
    """The short form for one namespace, and the long one."""
    assert given.mappings(point("shop"), "copy", None, ["fast=slow"]) == Mappings(
        namespaces={"shop": "copy"}, storage_classes={"fast": "slow"}
    )
    assert given.mappings(point("a", "b"), None, ["b=c"], None) == Mappings(namespaces={"b": "c"})


@pytest.mark.parametrize(
    ("to_namespace", "namespaces", "classes", "says"),
    [
        ("copy", None, None, "the point holds a, b"),
        ("copy", ["a=c"], None, "--map-namespace is given too"),
        (None, ["x=c"], None, "holds no x; it holds: a, b"),
        (None, ["a"], None, "is not OLD=NEW"),
        (None, ["a=c", "a=d"], None, "two new names"),
        (None, None, ["slow=fast"], "holds no slow; it holds: fast"),
    ],
)
def test_a_mapping_that_would_do_nothing_is_refused(
    to_namespace: str | None, namespaces: list[str] | None, classes: list[str] | None, says: str
) -> None:
    """A slip on the bad day is told, not ignored."""
    with pytest.raises(ConfigError) as refused:
        given.mappings(point("a", "b"), to_namespace, namespaces, classes)
    assert says in refused.value.message
