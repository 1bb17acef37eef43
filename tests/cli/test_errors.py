"""How failures are told: code, reason, guidance, exit code; JSON for scripts; no traceback but for a bug, no secret."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from blocks.redaction import guard
from cli import failing
from refloat.errors import ApprovalMissing, NotFound
from tests.cli.command import PROGRAM, InProcess

USAGE = [
    (("server",), 10, "missing command"),
    (("no-such-command",), 10, "no-such-command"),
    (("points", "--vault"), 10, "--vault"),
    (("points", "--no-such-flag"), 10, "--no-such-flag"),
    (("points", "-o", "xml"), 10, "'xml' is not one of 'table', 'json', 'yaml'"),
    (("points", "shop", "superfluous"), 10, "superfluous"),
    (("points",), 10, "no vault is given"),
    (("points", "--vault", "somewhere"), 10, "--vault: url"),
    (("protect", "shop", "-n", "shop", "--kubeconfig", "/no/such/file", "--vault", "s3://b/p"), 10, "/no/such/file"),
    (("protect", "-l", "app=x", "--vault", "s3://b/p"), 10, "give --namespace"),
    (("protect", "-n", "a", "-n", "b", "--vault", "s3://b/p"), 10, "needs a name"),
    (("protect", "-n", "a", "-f", "b.yaml"), 10, "by --file and by flags"),
    (("protect", "Shop!", "-n", "a", "--vault", "s3://b/p"), 10, "name:"),
    (("protect", "-n", "a", "--vault", "s3://b/p", "--rpo", "15"), 10, "--rpo"),
    (("protect", "-n", "a", "--vault", "s3://b/p", "--accept", "crash-consistnt"), 10, "mean crash-consistent?"),
    (("protect", "-n", "a", "--vault", "s3://b/p", "--password-secret", "one"), 10, "NAMESPACE/NAME"),
    (("protect", "-n", "a", "--vault", "s3://b/p", "--password-secret", "n/s", "--password-file", "f"), 10, "one of"),
    (("protect", "-f", "/no/such.yaml"), 10, "/no/such.yaml cannot be read"),
    (("recover", "--vault", "s3://b/p"), 10, "no application is named"),
    (("recover", "shop", "--vault", "s3://b/p", "--at", "teatime"), 10, "'teatime' is no time"),
    (("sweep", "--run", "x"), 10, "16 hexadecimal digits"),
]


@pytest.mark.parametrize(
    ("words", "exit_code", "says"), USAGE, ids=lambda value: " ".join(value) if isinstance(value, tuple) else ""
)
def test_a_wrong_command_line_is_named(refloat: InProcess, words: tuple[str, ...], exit_code: int, says: str) -> None:
    """One line what is wrong, one what to do; standard output stays empty."""
    outcome = refloat(*words)
    assert (outcome.error_code, outcome.exit_code) == ("CONFIG", exit_code), str(outcome)
    assert says in outcome.stderr
    assert "\n  do        " in outcome.stderr
    assert "Traceback" not in outcome.stderr
    assert outcome.stdout == ""


def test_with_json_standard_output_is_one_value(refloat: InProcess) -> None:
    """Also for a command line that does not parse; people read standard error as ever."""
    for words in (("points", "-o", "json"), ("points", "--output=json", "--no-such-flag")):
        outcome = refloat(*words)
        error = outcome.json["error"]
        assert (error["code"], error["exit_code"], error["retry"]) == ("CONFIG", 10, "never")
        assert error["guidance"]
        assert outcome.error_code == "CONFIG"


def test_notes_say_why_and_verbose_the_cause(capsys: pytest.CaptureFixture[str]) -> None:
    """Notes made on the way up are reasons; the chain of causes is for those who ask."""
    error = NotFound("bucket backups does not exist", guidance="Make it.")
    error.__cause__ = ValueError("HTTP 404\nfrom the store")
    error.add_note("also red: FORBIDDEN: list Pod")
    assert failing.tell(error) == 21
    assert capsys.readouterr().err == (
        "error NOT-FOUND: bucket backups does not exist\n"
        "  because   also red: FORBIDDEN: list Pod\n"
        "  do        Make it.\n"
    )
    failing.tell(error, verbose=True)
    assert "  because   ValueError: HTTP 404 from the store\n" in capsys.readouterr().err


def test_a_bug_asks_for_a_report(refloat: InProcess, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """One line, the traceback in a file of the user's own; loaded secrets in neither."""
    assert refloat
    secret = guard("hunter2-of-a-bug")
    try:
        raise KeyError(secret)
    except KeyError as bug:
        assert failing.tell_bug(bug, as_json=True) == 1
    said = capsys.readouterr()
    assert said.err.startswith("error REFLOAT: a bug in refloat: KeyError: ")
    assert "Traceback" not in said.err
    (kept,) = (tmp_path / "refloat-home").glob("bug-*.txt")
    assert str(kept) in said.err
    assert "Traceback" in kept.read_text()
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert secret not in said.err + said.out + kept.read_text()
    assert json.loads(said.out)["error"]["code"] == "REFLOAT"


def test_without_a_terminal_nobody_is_asked(refloat: InProcess) -> None:
    """`ask` never takes silence for a yes."""
    from cli.output import ask

    with pytest.raises(ApprovalMissing, match="--yes"):
        ask("really?")


def test_a_reader_that_stops_reading_is_no_error(refloat: InProcess) -> None:
    """`refloat --help | head -1`: no traceback, no complaint."""
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {PROGRAM} recover --help | true"], capture_output=True, text=True, check=False
    )
    assert done.returncode in (0, 141)  # 0: it had written all before the reader went
    assert done.stderr == ""


HEAVY = ("prefect", "kubernetes", "boto3", "botocore", "sqlalchemy", "starlette", "rich.console")


def test_the_command_is_quick_to_say_hello() -> None:
    """Help and version import no heavy client: only the commands that need one pay for it."""
    for words in (["--help"], ["recover", "--help"], ["--version"], ["points"]):
        code = (
            f"import sys; from cli.main import main; main({words!r}); print(sorted(set({HEAVY!r}) & set(sys.modules)))"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.splitlines()[-1] == "[]", done.stdout


def test_version_and_help(refloat: InProcess) -> None:
    """Both end well; every command is listed, also when nothing is asked."""
    assert refloat().done().stdout == refloat("--help").stdout
    assert refloat("--version").done().stdout.startswith("refloat 0.")
    listed = refloat("--help").done().stdout
    commands = ("discover", "protect", "points", "plan", "recover", "sweep", "deploy", "demo", "server")
    assert [name for name in commands if f"\n  {name} " not in listed] == []
    for name in commands:
        assert refloat(name, "--help").done().stdout.startswith(f"Usage: refloat {name} ")
