"""The second look at members after the cut: what lowers the label, and what is only said."""

from __future__ import annotations

from refloat.inventory import Inventory, Pod, Volume
from tasks.recheck import differences


def a_pod(name: str, uid: str, *claims: str) -> Pod:
    """A running pod that mounts these claims."""
    return Pod("n", name, uid, "Running", {}, {}, ("main",), ("any",), claims)


def an_inventory(pods: tuple[Pod, ...], *claims: str) -> Inventory:
    """These pods and claims."""
    volumes = tuple(
        Volume("n", claim, f"uid-{claim}", "Bound", "pv", "driver", "handle", None, 1, (), "Filesystem")
        for claim in claims
    )
    return Inventory("shop", (), volumes, pods)


BEFORE = an_inventory((a_pod("db", "1", "data"), a_pod("web", "2")), "data")


def test_nothing_changed() -> None:
    """Nothing is said."""
    assert differences(BEFORE, BEFORE) == ([], [])


def test_a_pod_that_came_with_a_volume_may_have_written() -> None:
    """And one of another uid is another pod, whatever its name."""
    after = an_inventory((a_pod("db", "3", "data"), a_pod("web", "2")), "data")
    came, went = "pod n/db came while the point was cut", "pod n/db went while the point was cut"
    assert differences(BEFORE, after) == ([came, went], [])


def test_pods_without_a_volume_come_and_go() -> None:
    """A Job's pod that ended is told, and proves nothing."""
    after = an_inventory((a_pod("db", "1", "data"), a_pod("job", "4"), a_pod("cache", "5", "another-claim")), "data")
    assert differences(BEFORE, after) == ([], ["pod n/web went while the point was cut"])


def test_claims() -> None:
    """One that is not in the point, and one that is gone."""
    after = an_inventory((a_pod("db", "1", "data"), a_pod("web", "2")), "more")
    changes, others = differences(BEFORE, after)
    assert changes == [
        "claim n/more came while the point was cut: it is not in it",
        "claim n/data went while the point was cut",
    ]
    assert others == []
