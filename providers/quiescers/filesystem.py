"""Quiescer of any file system: fsfreeze on the mount of a claim, for engines without a recipe of their own.

https://man7.org/linux/man-pages/man8/fsfreeze.8.html (it needs CAP_SYS_ADMIN; whoever writes waits, and cannot be
ended) and proc_pid_mountinfo(5): what is mounted there, and what else lies on the same file system.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from providers.quiescers.given import assigned, given_options, text_of
from refloat.errors import InvalidDocument, QuiesceFailed, Unsupported
from refloat.ports.quiescer import Ask, HoldScript, Place

FREEZE_SECONDS = 5
OPTIONS = {"mount"}
FREEZABLE = {"ext3", "ext4", "xfs", "btrfs", "f2fs"}
LOOK = (
    'command -v fsfreeze >/dev/null || { echo "no fsfreeze in this container" >&2; exit 1; }; cat /proc/self/mountinfo'
)
# who writes to a frozen file system cannot be ended, not by any signal: it is left to itself
CONFIRM = """( : >"$mount/.refloat-confirm" && rm -f "$mount/.refloat-confirm" ) >/dev/null 2>&1 </dev/null &
turn=0
while kill -0 $! 2>/dev/null && [ "$turn" -lt 45 ]; do sleep 0.1; turn=$((turn + 1)); done
kill -0 $! 2>/dev/null && exit 1
wait $!
"""


@dataclass(frozen=True)
class Mount:
    """One line of mountinfo."""

    device: str
    point: str
    kind: str


class FilesystemQuiescer:
    """One script. It never chooses itself: a document names it, with the mount."""

    engine = "filesystem"
    whole_by_one_cut = False

    def recognises(self, image: str) -> bool:  # noqa: ARG002 - the contract's argument
        """No image."""
        return False

    def scripts(self, place: Place, options: Mapping[str, str], ask: Ask) -> Sequence[HoldScript]:
        """The file system at ``mount``, when nothing else in the container lies on it."""
        mount = given_options(self.engine, options, OPTIONS)["mount"].rstrip("/")
        if not mount.startswith("/"):
            raise InvalidDocument(f"filesystem in {place}: option mount must be the path that its claim is mounted at")
        check_mount(place, mount, list(mounts_of(ask(("sh", "-c", LOOK)))))
        settings = {"mount": mount, "lock_seconds": str(FREEZE_SECONDS)}
        functions = text_of("filesystem.sh")
        return [
            HoldScript(
                engine=self.engine,
                part=mount,
                method=f"fsfreeze of {mount}: every write to it waits",
                stops_writes=True,
                ends_with="watchdog",
                functions=functions,
                thaw=("sh", "-c", assigned(settings) + functions + "undo\n"),
                confirm=("sh", "-c", assigned(settings) + CONFIRM),
                settings=settings,
            )
        ]


def mounts_of(text: str) -> Iterator[Mount]:
    """The lines of mountinfo, spaces in paths as they are."""
    for line in text.splitlines():
        fields, mark, rest = line.partition(" - ")
        words = fields.split()
        if mark and len(words) >= 6:
            yield Mount(words[2], words[4].replace("\\040", " "), rest.split()[0])


def check_mount(place: Place, mount: str, mounts: Sequence[Mount]) -> None:
    """Whether freezing it freezes the claim, and nothing else.

    Raises:
        QuiesceFailed: Nothing is mounted there.
        Unsupported: It cannot be frozen, or others share its file system.
    """
    found = [each for each in mounts if each.point == mount]
    if not found:
        raise QuiesceFailed(f"filesystem in {place}: nothing is mounted at {mount or '/'}")
    if found[-1].kind not in FREEZABLE:
        raise Unsupported(
            f"filesystem in {place}: {mount} is {found[-1].kind}, which cannot be frozen safely",
            guidance=f"Only these can: {', '.join(sorted(FREEZABLE))}. Use the engine's own recipe, or plain commands.",
        )
    others = sorted({each.point for each in mounts if each.device == found[-1].device} - {mount})
    if others:
        raise Unsupported(
            f"filesystem in {place}: {mount} shares its file system with {', '.join(others)}, which freezes too",
            guidance="Only a claim with a device of its own can be frozen; node-local folders cannot.",
        )


def open_quiescer() -> FilesystemQuiescer:
    """The entry point's factory."""
    return FilesystemQuiescer()
