"""`refloat thaw`: what is held is shown, a living run is left alone, the rest is let go after a yes."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from kube.application_lease import hold_application
from kube.cluster import Cluster
from kube.hold_record import HoldRecord
from kube.home import HOME
from kube.runs import LEASE
from kube.thawing import name_of_lease
from refloat.clock import now
from refloat.recovery_point import new_id
from tests.cli.command import InProcess, Program, on_terminal
from tests.contract.given import unique
from tests.kube.frozen import Frozen, record

MINUTE = timedelta(minutes=1)


@pytest.fixture
def frozen(range_cluster: Cluster) -> Iterator[Frozen]:
    """A pod that was left frozen, in a namespace of its own."""
    name = unique("thaw")
    range_cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    yield Frozen(range_cluster, name, "db").start()
    range_cluster.delete("Namespace", name)
    range_cluster.delete(LEASE, name_of_lease(name), HOME)


def left(frozen: Frozen, ago: timedelta) -> HoldRecord:
    """A run held it that began so long ago, and ended without letting go."""
    with hold_application(frozen.cluster, frozen.namespace, new_id()) as mine:
        return mine.record(record(mine.run, frozen.place, at=now() - ago))


def test_it_shows_first_and_lets_go_then(refloat: InProcess, cluster_flags: tuple[str, ...], frozen: Frozen) -> None:
    """Without a name or with --dry-run nothing is touched; nobody there to say yes is a no."""
    kept, by_hand = left(frozen, 2 * MINUTE), f"kubectl exec -n {frozen.namespace} db -c main -- rm -f /work/locked"
    for words in ((), (frozen.namespace, "--dry-run"), ("--all", "--dry-run", "--yes")):
        shown = refloat("thaw", *words, *cluster_flags).done().stdout
        assert by_hand in shown and kept.run in shown and "(past)" in shown
    refused = refloat("thaw", frozen.namespace, *cluster_flags)
    assert refused.error_code == "APPROVAL-MISSING" and kept.run in refused.stderr
    assert frozen.is_frozen
    assert "1 part let go" in refloat("thaw", frozen.namespace, "--yes", *cluster_flags).done().stdout
    assert not frozen.is_frozen
    assert "nothing is held" in refloat("thaw", frozen.namespace, "--yes", *cluster_flags).done().stdout


def test_as_json(refloat: InProcess, cluster_flags: tuple[str, ...], frozen: Frozen) -> None:
    """What was held and what was let go."""
    kept = left(frozen, 2 * MINUTE)
    done = refloat("thaw", frozen.namespace, "--yes", "-o", "json", *cluster_flags).done().json
    (held,), (thawed,) = done["held"], done["thawed"]
    assert (held["application"], held["run"], held["is_over"]) == (frozen.namespace, kept.run, True)
    assert [(part["pod"], part["left"]) for part in held["parts"]] == [("db", True)]
    assert (thawed["what"], thawed["place"]["uid"]) == ("thawed", frozen.place.uid)
    assert thawed["by"].startswith("refloat thaw (")
    assert refloat("thaw", frozen.namespace, "-o", "json", *cluster_flags).done().json == {"held": [], "thawed": []}


def test_a_living_run_is_left_alone(refloat: InProcess, cluster_flags: tuple[str, ...], frozen: Frozen) -> None:
    """Before its deadline, unless it is forced; --all lets go of the others all the same."""
    with hold_application(frozen.cluster, frozen.namespace, new_id()) as mine:
        mine.record(record(mine.run, frozen.place))
        refused = refloat("thaw", "--all", "--yes", *cluster_flags)
        assert (refused.error_code, refused.exit_code) == ("LEASE-HELD", 42)
        assert mine.run in refused.stderr and frozen.is_frozen
        refloat("thaw", frozen.namespace, "--yes", "--force", *cluster_flags).done()
        assert not frozen.is_frozen
        mine.check_held()


def test_what_will_not_go(refloat: InProcess, cluster_flags: tuple[str, ...], frozen: Frozen) -> None:
    """The error has the command; two ways of choosing are one too many."""
    place = frozen.place.model_copy(update={"thaw": ("false",)})
    with hold_application(frozen.cluster, frozen.namespace, new_id()) as mine:
        mine.record(record(mine.run, place, at=now() - 2 * MINUTE))
    refused = refloat("thaw", frozen.namespace, "--yes", *cluster_flags)
    assert (refused.error_code, refused.exit_code) == ("THAW-UNCONFIRMED", 51)
    assert f"kubectl exec -n {frozen.namespace} db -c main -- false" in refused.stderr
    assert refloat("thaw", frozen.namespace, "--all", *cluster_flags).error_code == "CONFIG"


def test_a_person_says_yes(tmp_path: Path, cluster_flags: tuple[str, ...], frozen: Frozen) -> None:
    """Or no. It needs no Prefect server."""
    program = Program({"REFLOAT_HOME": str(tmp_path), "PREFECT_API_URL": "http://127.0.0.1:9/api"})
    left(frozen, 2 * MINUTE)
    code, shown = on_terminal(program, "thaw", frozen.namespace, *cluster_flags, answer="n")
    assert code == 65 and "let go of 1 part?" in shown and frozen.is_frozen, shown
    code, shown = on_terminal(program, "thaw", frozen.namespace, *cluster_flags, answer="y")
    assert code == 0 and not frozen.is_frozen, shown
