"""What is told of a run where there is no terminal: sparse lines, warnings always, everything for those who ask."""

from __future__ import annotations

import pytest

from cli.output import binary, size, span
from cli.progress import showing
from cli.protect import Sealing
from refloat.duration import parse_duration
from refloat.progress import Event, emit
from refloat.transfer import Progress


def tell(step: str, done: int, *, is_last: bool = False) -> None:
    """One event of a mover."""
    progress = Progress(volume="shop/data", bytes_done=done, bytes_total=2_000_000, files_done=3, is_last=is_last)
    emit(Event(step, "moved", progress.volume, progress))


def test_sparse_lines(capsys: pytest.CaptureFixture[str]) -> None:
    """A second of bytes after another is no news; what a step says and every warning is."""
    with showing(verbose=False):
        emit(Event("upload", "started"))
        for done in range(100):
            tell("upload", done * 20_000)
        tell("upload", 2_000_000, is_last=True)
        emit(Event("upload", "note", "shop/data: 2000000 bytes"))
        emit(Event("verify", "note", "by sample"))
        emit(Event("verify", "warning", "one pod is Pending"))
    emit(Event("upload", "note", "said when nobody shows it"))
    said = capsys.readouterr()
    assert said.out == ""
    assert [line.split(maxsplit=1) for line in said.err.splitlines()] == [
        ["upload", "shop/data: 2000000 bytes"],
        ["verify", "warning: one pod is Pending"],
    ]


def test_verbose_says_every_step(capsys: pytest.CaptureFixture[str]) -> None:
    """Start, notes and end."""
    with showing(verbose=True):
        emit(Event("verify", "started"))
        emit(Event("verify", "note", "by sample"))
        emit(Event("verify", "finished"))
    assert [line.split()[1] for line in capsys.readouterr().err.splitlines()] == ["started", "by", "finished"]


@pytest.mark.parametrize(
    ("duration", "said"),
    [("0s", "0.0 s"), ("310ms", "0.3 s"), ("12s", "12 s"), ("4m2s", "4 min 2 s"), ("3h5m9s", "3 h 5 min"),
     ("8d", "8 d"), ("59999ms", "1 min"), ("16m", "16 min")],
)  # fmt: skip
def test_durations_for_people(duration: str, said: str) -> None:
    """Two units at most."""
    assert span(parse_duration(duration)) == said


def test_sizes_for_people() -> None:
    """Decimal for data, binary for what claims ask for, as Kubernetes writes it."""
    assert [size(count) for count in (0, 999, 1000, 12_400_000, 412_000_000, 1_900_000_000)] == [
        "0 B", "999 B", "1.0 kB", "12.4 MB", "412 MB", "1.9 GB",
    ]  # fmt: skip
    assert [binary(count) for count in (0, 1 << 20, 2 << 30, 3 << 29)] == ["0 B", "1 MiB", "2 GiB", "1.5 GiB"]


def test_who_interrupts_is_told_whether_a_point_exists() -> None:
    """Before the seal, within it, after it."""
    sealing = Sealing()
    said = [sealing.said]
    for event in (
        Event("upload", "note", "x"),
        Event("seal", "started"),
        Event("seal", "note", "0123 crash-consistent"),
    ):
        sealing.hear(event)
        said.append(sealing.said)
    assert said[0] == said[1] == "nothing was sealed, and what the run created was removed"
    assert "not known" in said[2]
    assert said[3] == "the point was sealed before: 0123 crash-consistent"
