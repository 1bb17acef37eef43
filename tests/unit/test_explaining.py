"""What people read of a certificate: all that counts, at 100 columns, and nothing that a terminal would obey."""

from __future__ import annotations

import pytest

from refloat.certificate import Certificate
from refloat.explaining import COLUMNS, LEGEND, explain, explain_point
from refloat.recovery_point import VolumeCopy
from refloat.values import Consistency
from refloat.verdict import judged
from tests.unit.certificates import LOSSES, NOBODY, at, part, point, proving

PROOF = """\
application-consistent
held 733 ms at most (budget 10000, hard limit 30000, lease 10000); freeze skew 3 ms

                               0                                                              733 ms
shop/a (orders)                ==*==================================*===========================*~~
shop/b (orders)                .=*==================================*===========================*~~~
the cut                            |-----------------------------------------------------------|
. freezing   = held   * heartbeat   ~ letting go   ? nobody knows   | the cut: asked, seen

shop/a (orders): postgresql in container db, EXCLUSIVE locks on 12 tables of orders
  armed -40, freeze sent 0, held 9, release sent 712, released 730 (ms)
  heartbeats 3; last before the cut answered 22; first after it asked 705, answered 707
  by its own account held without a break for 711 ms
  pod uid-of-a, 1 restarts, role primary, timeline 4: the same afterwards
  a fresh write went through afterwards
shop/b (orders): postgresql in container db, EXCLUSIVE locks on 12 tables of orders
  armed -37, freeze sent 3, held 12, release sent 712, released 733 (ms)
  heartbeats 3; last before the cut answered 25; first after it asked 705, answered 707
  by its own account held without a break for 711 ms
  pod uid-of-b, 1 restarts, role primary, timeline 4: the same afterwards
  a fresh write went through afterwards
2 volumes cut as one group, skew 0 ms, by the storage's clock:
  05:23:35.373Z +0 ms  shop/data-a
  05:23:35.373Z +0 ms  shop/data-b"""


def test_the_timeline_as_a_person_reads_it() -> None:
    """The whole text; the storage's clock is an hour wrong, which changes nothing."""
    assert "\n".join(explain(judged(proving()))) == PROOF


@pytest.mark.parametrize("name", LOSSES)
def test_every_reason_is_told(name: str) -> None:
    """Whatever is missing: the label, each reason, and no line too long."""
    found = judged(LOSSES[name][0](proving()))
    lines = explain(found)
    assert lines[:2] == [found.verdict.value, "why no higher:"]
    said = " ".join(line.strip() for line in lines)
    assert all(reason in said for reason in found.reasons)
    assert max(map(len, lines)) <= COLUMNS


def test_who_was_not_held() -> None:
    """Named among the reasons, once."""
    assert "  - shop/c was not held: no quiescer knows its image" in explain(judged(proving(unheld=(NOBODY,))))


def test_nothing_was_held() -> None:
    """No chart, and why; cuts one by one are told apart."""
    cuts = (proving().cuts[0], proving().cuts[1].model_copy(update={"cut_at": at(3_601_550)}))
    lines = explain(judged(proving(parts=(), group=False, cuts=cuts, cut_asked_at=None, cut_seen_at=None)))
    assert LEGEND not in lines
    assert lines[0] == Consistency.INCONSISTENT.value
    assert "2 volumes cut one by one, skew 1250 ms, by the storage's clock:" in lines
    assert explain(Certificate(verdict=Consistency.CRASH, reasons=("nothing was held",))) == [
        "crash-consistent", "why no higher:", "  - nothing was held", "no volume was cut",
    ]  # fmt: skip


def test_a_part_that_broke_is_not_drawn_as_held() -> None:
    """After its last heartbeat nobody knows."""
    broken = part(
        "b", 3, beats=part("b", 3).beats[:2], broken="no answer in time", released_at=None, held_uptime_seconds=None,
        confirmed=False,
    )  # fmt: skip
    lines = explain(judged(proving(parts=(part("a", 0), broken))))
    (row,) = [line for line in lines if line.startswith("shop/b (orders)  ")]
    assert set(row.rpartition("*")[2]) == {"?"}
    assert "  the hold broke: no answer in time" in lines
    assert "  NO FRESH WRITE WENT THROUGH AFTERWARDS" in lines


def test_what_a_pod_says_cannot_reach_the_terminal() -> None:
    """Escape sequences, line breaks and backticks stay text, in bars, sentences and reasons."""
    nasty = "\x1b[2J\r\n```\n# heading\x07"
    bad = part("p\x1b]0;x", 3, broken=nasty, method=nasty)
    lines = explain_point(point(judged(proving(parts=(bad,)))))
    assert all(line.isprintable() for line in lines)


def test_long_names_keep_the_chart_in_shape() -> None:
    """The end of a name is what tells pods apart."""
    names = [f"{'very-long-name-' * 8}{number}" for number in range(2)]
    lines = explain(judged(proving(parts=tuple(part(name, 0) for name in names))))
    rows = [line for line in lines if line.startswith("…")]
    assert len(set(rows)) == 2
    assert max(map(len, rows)) <= COLUMNS


def test_a_point_of_before_certificates() -> None:
    """It says so, and what its label is."""
    old = point(None, consistency=Consistency.CRASH)
    assert explain_point(old)[1:] == [
        "crash-consistent: it was sealed before there were certificates, nothing is proven here"
    ]


def test_files_that_an_engine_gave_are_named() -> None:
    """They are in the copy and were on no volume: whoever compares the two must know."""
    copy = VolumeCopy(
        namespace="shop", claim="data", tree="0" * 64, path="volumes/shop/data", driver="d", requested_bytes=1, files=1,
        data_bytes=1, added_bytes=1, cut_at=at(300), added=("pg/backup_label", "pg/tablespace_map"),
    )  # fmt: skip
    lines = explain_point(point(judged(proving()), volumes=(copy,)))
    assert lines[-1] == "added to shop/data for its engine: pg/backup_label, pg/tablespace_map"
    assert not [line for line in explain_point(point(judged(proving()))) if line.startswith("added")]
