"""Documents: what a person may write, and how what is wrong in it is named."""

from __future__ import annotations

import io
from datetime import timedelta
from pathlib import Path

import pytest

from blocks.documents import load_documents, parse_documents
from refloat.errors import ConfigError, InvalidDocument

APPLICATION = """\
apiVersion: refloat/v1
kind: Application
name: shop
members:
  - namespace: shop
    selector: app=shop
"""
POLICY = """\
apiVersion: refloat/v1
kind: ProtectionPolicy
name: shop-daily
application: shop
vault: {url: "s3://backups/shop", password: {file: /etc/password}}
objectives: {rpo: 1h, rto: 15m}
"""


def test_one_file_holds_both() -> None:
    """Both kinds of document, separated as YAML does, and empty documents between them are nothing."""
    found = parse_documents(f"---\n{APPLICATION}---\n---\n{POLICY}", "shop.yaml")
    assert found.application().members[0].selector == "app=shop"
    policy = found.policy("shop")
    assert policy is not None
    assert (policy.objectives.rpo, policy.interval) == (timedelta(hours=1), timedelta(minutes=48))


@pytest.mark.parametrize(
    ("written", "instead", "says"),
    [
        ("selector:", "selectr:", ("members.0.selectr", "did you mean selector?")),
        ("members:", "member:", ("member is no field", "did you mean members?", "shop.yaml", "Application shop")),
        ("kind: Application", "kind: Aplication", ("'Aplication'", "did you mean Application?")),
        ("kind: Application\n", "", ("kind is missing", "Application, ProtectionPolicy")),
        ("refloat/v1", "refloat/v9", ("'refloat/v9'", "refloat/v1")),
        ("name: shop", "name: Shop!", ("name:", "Application Shop!")),
        ("name: shop", "name: shop\nname: shop2", ("'name' is written twice", "line 4")),
        ("namespace: shop", "namespace: [", ("no valid YAML", "line")),
        (APPLICATION, "", ("holds no document",)),
        (APPLICATION, "just a word", ("document 1 is a str",)),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(written: str, instead: str, says: tuple[str, ...]) -> None:
    """File, document, field, and the closest field that exists."""
    text = APPLICATION.replace(written, instead)
    assert text != APPLICATION
    with pytest.raises(InvalidDocument) as refused:
        parse_documents(text, "shop.yaml")
    assert "shop.yaml" in refused.value.message
    assert [part for part in says if part not in refused.value.message] == [], refused.value.message


@pytest.mark.parametrize(
    ("written", "instead", "says"),
    [
        ("rpo: 1h", "rpo: 60", "a duration is written with its unit"),
        ("rpo: 1h", "rpo: soon", "'soon' is no duration"),
        ("rpo: 1h", "rpoo: 1h", "did you mean rpo?"),
        ("file: /etc/password", "file: /etc/password, env: X", "exactly one of file, env and secret"),
        ("s3://backups/shop", "backups/shop", "vault.url"),
        ("name: shop-daily", "name: shop-daily\naccept: perfect", "accept"),
    ],
)
def test_a_policy_s_faults_are_named(written: str, instead: str, says: str) -> None:
    """Units, spelling, contradictions."""
    with pytest.raises(InvalidDocument) as refused:
        parse_documents(POLICY.replace(written, instead), "policy.yaml")
    assert says in refused.value.message


def test_the_application_meant() -> None:
    """By name, or the only one; never a guess among several, and never the same name twice."""
    two = parse_documents(f"{APPLICATION}---\n{APPLICATION.replace('name: shop', 'name: shop2')}", "two.yaml")
    assert two.application("shop2").name == "shop2"
    for name in (None, "shop3"):
        with pytest.raises(ConfigError, match="it holds: shop, shop2"):
            two.application(name)
    with pytest.raises(InvalidDocument, match="application shop twice"):
        parse_documents(f"{APPLICATION}---\n{APPLICATION}", "twice.yaml")


def test_the_policy_meant() -> None:
    """The one that names the application goes before the one for any; two for one application are an error."""
    general = POLICY.replace("application: shop\n", "").replace("shop-daily", "general")
    found = parse_documents(f"{general}---\n{POLICY}", "policies.yaml")
    named = [policy.name for policy in (found.policy("shop"), found.policy("other")) if policy]
    assert named == ["shop-daily", "general"]
    with pytest.raises(ConfigError, match="2 policies"):
        parse_documents(f"{POLICY}---\n{POLICY}", "policies.yaml").policy("shop")


def test_files_and_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path or ``-``; a file that is not there, or is no text, is named."""
    monkeypatch.setattr("sys.stdin", io.StringIO(APPLICATION))
    assert load_documents("-").application().name == "shop"
    with pytest.raises(ConfigError, match=r"no-such\.yaml cannot be read: No such file"):
        load_documents(tmp_path / "no-such.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"binary\.yaml cannot be read"):
        load_documents(tmp_path / "binary.yaml")
