"""Commands in containers: exit codes, streams, input and its end, time, and what cannot be run."""

from __future__ import annotations

import hashlib
from datetime import timedelta

import pytest

from kube.cluster import Cluster
from refloat.errors import ClusterError, ObjectMissing
from tests.contract.given import SOON, container, pod, run_pod, start, until_phase

BRIEF = timedelta(seconds=1)


def test_exit_codes_and_streams(cluster: Cluster, namespace: str) -> None:
    """Output and errors apart; the command's own code; a signal as a shell counts it."""
    run_pod(cluster, pod(namespace, "p"))
    done = cluster.exec(namespace, "p", "main", ["sh", "-c", "echo out; echo err >&2; exit 7"], timeout=SOON)
    assert (done.exit_code, done.stdout, done.stderr) == (7, b"out\n", b"err\n")
    assert cluster.exec(namespace, "p", "main", ["true"], timeout=SOON).exit_code == 0
    killed = cluster.exec(namespace, "p", "main", ["sh", "-c", "kill -9 $$"], timeout=SOON)
    assert killed.exit_code == 137


def test_arguments_arrive_as_they_are(cluster: Cluster, namespace: str) -> None:
    """No shell, no splitting."""
    run_pod(cluster, pod(namespace, "p"))
    words = ["printf", "%s|", "a b", "", "$HOME", "&x=1", "ü"]
    assert cluster.exec(namespace, "p", "main", words, timeout=SOON).stdout.decode() == "a b||$HOME|&x=1|ü|"


def test_input_is_delivered_and_closed(cluster: Cluster, namespace: str) -> None:
    """More than any pipe holds, bytes of every value, and then its end."""
    run_pod(cluster, pod(namespace, "p"))
    given = bytes(range(256)) * 2000
    done = cluster.exec(namespace, "p", "main", ["sha256sum"], timeout=SOON, stdin=given)
    assert done.stdout.split()[0].decode() == hashlib.sha256(given).hexdigest()
    assert cluster.exec(namespace, "p", "main", ["cat"], timeout=SOON, stdin=b"").stdout == b""
    assert cluster.exec(namespace, "p", "main", ["cat"], timeout=SOON).stdout == b""


def test_input_nobody_reads(cluster: Cluster, namespace: str) -> None:
    """The command's code is what counts. (With 300 kB of it the lab's kubelet never sent the exit status.)"""
    run_pod(cluster, pod(namespace, "p"))
    done = cluster.exec(namespace, "p", "main", ["sh", "-c", "exit 5"], timeout=SOON, stdin=b"x" * 3000)
    assert done.exit_code == 5


def test_large_output(cluster: Cluster, namespace: str) -> None:
    """The last MiB is kept; nothing hangs."""
    run_pod(cluster, pod(namespace, "p"))
    script = "head -c 8000000 /dev/zero; echo end"
    done = cluster.exec(namespace, "p", "main", ["sh", "-c", script], timeout=SOON)
    assert done.exit_code == 0 and len(done.stdout) == 1 << 20 and done.stdout.endswith(b"\0end\n")


def test_a_command_out_of_time(cluster: Cluster, namespace: str) -> None:
    """No exit code, what was printed so far; the command itself is not ended by our going."""
    run_pod(cluster, pod(namespace, "p"))
    script = "echo begun; sleep 3; touch /work/finished"
    done = cluster.exec(namespace, "p", "main", ["sh", "-c", script], timeout=BRIEF)
    assert (done.exit_code, done.stdout) == (None, b"begun\n")
    wait = "for i in $(seq 80); do test -f /work/finished && exit 0; sleep 0.1; done; exit 1"
    assert cluster.exec(namespace, "p", "main", ["sh", "-c", wait], timeout=SOON).exit_code == 0


def test_what_cannot_be_run(cluster: Cluster, namespace: str) -> None:
    """No pod, no container, no program: three failures, none of which is an exit code of a command that ran."""
    run_pod(cluster, pod(namespace, "p"))
    with pytest.raises(ObjectMissing):
        cluster.exec(namespace, "none", "main", ["true"], timeout=SOON)
    with pytest.raises(ClusterError, match="container"):
        cluster.exec(namespace, "p", "none", ["true"], timeout=SOON)
    with pytest.raises(ClusterError, match="no-such-program"):
        cluster.exec(namespace, "p", "main", ["no-such-program"], timeout=SOON)


def test_a_pod_that_has_ended(cluster: Cluster, namespace: str) -> None:
    """Refused, whatever the command."""
    start(cluster, pod(namespace, "p", "exit 0"))
    until_phase(cluster, "p", namespace, "Succeeded")
    with pytest.raises(ClusterError):
        cluster.exec(namespace, "p", "main", ["true"], timeout=SOON)


def test_a_command_ends_with_its_container(cluster: Cluster, namespace: str) -> None:
    """Whatever it was doing: killed, and said to be."""
    run_pod(cluster, pod(namespace, "p", containers=[container("while [ ! -f /work/go ]; do sleep 0.1; done")]))
    script = "touch /work/go; sleep 600"
    try:
        code = cluster.exec(namespace, "p", "main", ["sh", "-c", script], timeout=SOON).exit_code
    except ClusterError:
        return  # the runtime may lose the session instead of ending it
    assert code == 137
