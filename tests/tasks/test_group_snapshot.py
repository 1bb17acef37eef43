"""In which rounds volumes are cut, and one ticket for all of them."""

from __future__ import annotations

from refloat.inventory import Volume
from refloat.ports.volume_snapshotter import Ticket
from tasks.group_snapshot import joined, rounds_of


def volume(claim: str) -> Volume:
    """A claim of the namespace n."""
    return Volume("n", claim, f"uid-{claim}", "Bound", "pv", "driver", "handle", None, 1, (), "Filesystem")


DATA, LOG, SPACE = volume("data"), volume("log"), volume("space")


def test_who_must_come_last_has_a_round_of_its_own() -> None:
    """After all the others; without any, and where it would be all of them, there is one round."""
    assert rounds_of([DATA, LOG, SPACE], {"n/log"}) == [[DATA, SPACE], [LOG]]
    assert rounds_of([DATA, LOG], ()) == [[DATA, LOG]]
    assert rounds_of([DATA, LOG], {"n/data", "n/log"}) == [[DATA, LOG]]
    assert rounds_of([DATA], {"elsewhere/data"}) == [[DATA]]


def test_one_ticket_is_for_the_volumes_of_both_rounds() -> None:
    """So that all cuts are polled, judged and discarded together."""
    first = Ticket("run", "volume-snapshots", (DATA, SPACE), {"n/data": "a", "n/space": "b"})
    last = Ticket("run", "volume-snapshots", (LOG,), {"n/log": "c"})
    assert joined(None, first) is first
    both = joined(first, last)
    assert (both.volumes, dict(both.names)) == ((DATA, SPACE, LOG), {"n/data": "a", "n/space": "b", "n/log": "c"})
