"""`refloat extract`: volumes, paths and files onto this machine, without a cluster, nothing overwritten in silence."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from refloat.recovery_point import CataloguedPoint, VolumeCopy
from refloat.registry import open_object_store
from tests.cli.command import InProcess, Program, on_terminal
from tests.vault.devices import MIB, attached, digest, image
from tests.vault.given import AT, MANIFEST, PASSWORD, facts, point_over, put_oddities
from vault.archive import archive
from vault.catalogue import seal
from vault.device import archive_device
from vault.repository import init
from vault.tally import Tally

HOSTILE = b"\x1b[2Jred\n"


@dataclass(frozen=True)
class Given:
    """A vault with one point over a folder and a device, and the program."""

    point: CataloguedPoint
    folder: Path
    device: Path
    program: Program
    words: tuple[str, ...]


@pytest.fixture
def given(tmp_path: Path) -> Iterator[Given]:
    """Without any cluster."""
    folder, place = tmp_path / "source", tmp_path / "vault"
    folder.mkdir()
    put_oddities(folder)
    (folder / "sub" / os.fsdecode(HOSTILE)).write_text("x")
    device = image(tmp_path / "device", "rt0-r")
    vault = init(open_object_store(f"file://{place}", {}), PASSWORD)
    data, raw = archive(vault, folder, Tally()), archive_device(vault, device, Tally())
    copy = VolumeCopy(
        namespace="shop", claim="raw", tree=raw.tree, path="volumes/shop/raw", driver="test", requested_bytes=1,
        files=1, data_bytes=raw.size_bytes, added_bytes=0, cut_at=AT, mode="device", chunk_bytes=raw.chunk_bytes,
    )  # fmt: skip
    point = point_over(("data", data))
    sealed = seal(vault, point.model_copy(update={"volumes": (*point.volumes, copy)}), {MANIFEST: b'{"kind": 1}'})
    vault.close()
    environment = {"REFLOAT_HOME": str(tmp_path / "home"), "REFLOAT_PASSWORD": PASSWORD}
    yield Given(sealed, folder, device, Program(environment), ("extract", "shop", "--vault", f"file://{place}"))


@pytest.fixture
def extract(given: Given, refloat: InProcess, monkeypatch: pytest.MonkeyPatch) -> InProcess:
    """The command in this process."""
    monkeypatch.setenv("REFLOAT_PASSWORD", PASSWORD)
    return refloat


def test_a_whole_volume(given: Given, extract: InProcess, tmp_path: Path) -> None:
    """Into a folder that is made for it; again, it is already so, and needs a yes."""
    out = tmp_path / "new" / "out"
    done = extract(*given.words, "--volume", "data", "--to", out, "-o", "json").done().json
    assert (done["as"], done["loses"], done["point"]) == ("folder", None, given.point.point.id)
    assert facts(out) == facts(given.folder)
    (out / "mine").write_text("precious")
    refused = extract(*given.words, "--volume", "shop/data", "--to", out)
    assert (refused.exit_code, refused.error_code) == (65, "APPROVAL-MISSING")
    assert f"what is in {out} and not in the copy is removed" in refused.stderr
    assert (out / "mine").exists()
    extract(*given.words, "--volume", "data", "--to", out, "--yes").done()
    assert facts(out) == facts(given.folder)


def test_a_whole_point(given: Given, extract: InProcess, tmp_path: Path) -> None:
    """Manifests and all volumes, as any restic would restore them."""
    said = extract(*given.words, "--point", given.point.point.id[:6], "--to", tmp_path / "out").done().stdout
    assert given.point.point.id in said
    out = tmp_path / "out"
    assert (out / MANIFEST).read_bytes() == b'{"kind": 1}'
    assert (out / "recovery-point.json").exists()
    assert facts(out / "volumes" / "shop" / "data") == facts(given.folder)
    assert digest(out / "volumes" / "shop" / "raw" / "device") == digest(given.device)


def test_one_path(given: Given, extract: InProcess, tmp_path: Path) -> None:
    """A folder's content, or one file under its name; what bears the name is replaced only when that is meant."""
    sub, out = tmp_path / "sub", tmp_path / "out"
    extract(*given.words, "--volume", "data", "--path", "/sub/", "--to", sub).done()
    assert facts(sub) == facts(given.folder / "sub")
    assert (sub.stat().st_mode, sub.stat().st_mtime_ns) == (
        (given.folder / "sub").stat().st_mode,
        (given.folder / "sub").stat().st_mtime_ns,
    )
    words = (*given.words, "--volume", "data", "--path", r"\xff\xfe no utf-8", "--to", out)
    extract(*words).done()
    name = os.fsdecode(b"\xff\xfe no utf-8")
    (out / name).write_text("mine")
    (out / "other").write_text("mine too")
    refused = extract(*words)
    assert (refused.exit_code, refused.error_code) == (65, "APPROVAL-MISSING")
    assert (out / name).read_text() == "mine"
    extract(*words, "--yes").done()
    assert (out / name).read_bytes() == (given.folder / name).read_bytes()
    assert (out / "other").read_text() == "mine too"


def test_one_file_to_standard_output(given: Given, tmp_path: Path) -> None:
    """Its bytes and nothing else; a reader who goes away ends it without a word."""
    words = (*given.words, "--volume", "data", "--path", "sub/random", "--to", "-")
    process = given.program.start(*words)
    assert process.stdout is not None
    body = process.stdout.buffer.read()  # type: ignore[attr-defined]
    assert process.wait(60) == 0
    assert body == (given.folder / "sub" / "random").read_bytes()
    leaving = given.program.start(*words)
    assert leaving.stdout is not None
    assert leaving.stdout.buffer.read(1)  # type: ignore[attr-defined]
    leaving.stdout.close()
    assert leaving.stderr is not None
    assert leaving.stderr.read() == ""
    assert leaving.wait(60) == 141


def test_an_interrupt_is_heard(given: Given) -> None:
    """While the reader is slow: exit code 130, and nobody takes what was written for the whole file."""
    process = given.program.start(*given.words, "--volume", "data", "--path", "sub/random", "--to", "-")
    assert process.stdout is not None
    first = process.stdout.buffer.read(1)  # type: ignore[attr-defined]
    process.send_signal(signal.SIGINT)
    process.stdout.buffer.read()  # type: ignore[attr-defined]
    assert process.stderr is not None
    said = process.stderr.read()
    assert process.wait(60) == 130, said
    assert "error INTERRUPTED: interrupted; shop/data: sub/random is not whole" in said
    assert first


def test_listing(given: Given, extract: InProcess) -> None:
    """What a folder holds, for people and for scripts; a name cannot speak to the terminal."""
    listed = extract(*given.words, "--volume", "data", "--list", "-o", "json").done().json
    assert {each["name"] for each in listed} >= {"sub", "text", r"\xff\xfe no utf-8"}
    (link,) = [each for each in listed if each["name"] == "link"]
    assert (link["type"], link["target"], link["mode"][0]) == ("symlink", "text", "l")
    said = extract(*given.words, "--volume", "data", "--path", "sub", "--list").done().stdout
    assert "\x1b" not in said
    assert r"\x1b[2Jred\n" in said
    top = extract(*given.words, "--list", "-o", "json").done().json
    assert [each["name"] for each in top] == ["objects", "recovery-point.json", "volumes"]


@pytest.mark.parametrize(
    ("words", "exit_code", "said"),
    [
        (("--volume", "data", "--path", "sub/randon", "--to", "out"), 10, "the closest there is random"),
        (("--volume", "data", "--path", os.fsdecode(b"sub/\xfe"), "--to", "out"), 10, r"no sub/\xfe"),
        (("--volume", "data", "--path", "sub/\x1b[2Jrod", "--to", "out"), 10, r"the closest there is \x1b[2Jred\n"),
        (("--volume", "data", "--path", "text", "--to", os.fsdecode(b"/dev/null/\xff")), 10, r"/dev/null/\xff"),
        (("--volume", "dato", "--to", "out"), 10, "did you mean data"),
        (("--volume", "data"), 10, "nothing says where to"),
        (("--list", "--to", "out"), 10, "--list writes nothing"),
        (("--volume", "data", "--to", "-"), 10, "is a dir"),
        (("--volume", "data", "--path", "text", "--to", "-", "-o", "json"), 10, "leave out --output"),
        (("--volume", "data", "--to", "/dev/null"), 10, "is no folder"),
        (("--volume", "raw", "--to", "/dev/null", "--yes"), 10, "neither a block device"),
        (("--point", "ffff", "--volume", "data", "--to", "out"), 60, "none of the 1 points"),
    ],
)  # fmt: skip
def test_what_cannot_be(
    given: Given, extract: InProcess, tmp_path: Path, words: tuple[str, ...], exit_code: int, said: str
) -> None:
    """A named error, and nothing is made."""
    placed = [str(tmp_path / word) if word == "out" else word for word in words]
    done = extract(*given.words, *placed)
    assert (done.exit_code, said in done.stderr) == (exit_code, True), str(done)
    assert not (tmp_path / "out").exists()


def test_a_dry_run_touches_nothing(given: Given, extract: InProcess, tmp_path: Path) -> None:
    """It says what would be lost."""
    out = tmp_path / "out"
    words = (*given.words, "--volume", "data", "--to", out, "--dry-run")
    assert "nothing there is overwritten" in extract(*words).done().stdout
    assert not out.exists()
    out.mkdir()
    (out / "mine").touch()
    assert f"what is in {out} and not in the copy is removed" in extract(*words, "-o", "json").done().json["loses"]
    assert [each.name for each in out.iterdir()] == ["mine"]


def test_a_raw_volume(given: Given, extract: InProcess, tmp_path: Path) -> None:
    """Into a new file, and onto a device after a yes; the rest of a larger one is left and said."""
    out = tmp_path / "raw.img"
    extract(*given.words, "--volume", "raw", "--to", out).done()
    assert digest(out) == digest(given.device)
    assert out.stat().st_blocks * 512 == 3 * MIB
    folder = tmp_path / "folder"
    folder.mkdir()
    extract(*given.words, "--volume", "raw", "--to", folder).done()
    assert digest(folder / "device") == digest(given.device)
    with attached(image(tmp_path / "target", "tttttt")) as target:
        before = digest(target)
        refused = extract(*given.words, "--volume", "raw", "--to", target)
        assert (refused.exit_code, digest(target)) == (65, before)
        assert f"all that is on {target} is overwritten" in refused.stderr
        done = extract(*given.words, "--volume", "raw", "--to", target, "--yes").done()
        assert digest(target, 5 * MIB) == digest(given.device)
        assert "larger than the copy" in done.stderr


def test_a_person_is_asked(given: Given, tmp_path: Path) -> None:
    """On a terminal: no leaves everything, yes goes on."""
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine").touch()
    words = (*given.words, "--volume", "data", "--path", "sub", "--to", out)
    exit_code, shown = on_terminal(given.program, *words, answer="n")
    assert (exit_code, (out / "mine").exists()) == (65, True), shown
    exit_code, shown = on_terminal(given.program, *words, answer="y")
    assert (exit_code, facts(out)) == (0, facts(given.folder / "sub")), shown
