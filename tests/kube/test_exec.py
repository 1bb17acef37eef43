"""Exec when the connection, not the command, fails: an exit status that never came is never a zero."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest
import yaml

from kube.cluster import Cluster
from practice.access import Fault, Identity
from practice.range import PracticeRange
from refloat.errors import ClusterError, Forbidden, Unreachable
from tests.contract.given import pod, run_pod

TEN_SECONDS = timedelta(seconds=10)


@pytest.fixture
def kubeconfig(practice: PracticeRange) -> Path:
    """A practice range of its own with a running pod ``app/p``."""
    cluster = Cluster.open(kubeconfig=str(practice.kubeconfig))
    cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "app"}})
    run_pod(cluster, pod("app", "p"))
    return practice.kubeconfig


class Cable:
    """A connection to the API server that can be pulled."""

    def __init__(self, server: socket.socket, target: tuple[str, int]) -> None:
        self.server, self.target, self.ends = server, target, list[socket.socket]()

    @property
    def address(self) -> str:
        """Where to connect to."""
        return f"http://127.0.0.1:{self.server.getsockname()[1]}"

    def serve(self) -> None:
        """Carry bytes both ways until the block ends."""
        while True:
            try:
                near, _ = self.server.accept()
            except OSError:
                return
            far = socket.create_connection(self.target)
            self.ends += [near, far]
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=self.carry, args=(source, sink), daemon=True).start()

    @staticmethod
    def carry(source: socket.socket, sink: socket.socket) -> None:
        """One direction, until either end is closed."""
        try:
            while data := source.recv(65536):
                sink.sendall(data)
        except OSError:
            pass

    def pull(self) -> None:
        """Every connection ends, both ways, at once."""
        for end in self.ends:
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue


@contextmanager
def cable_to(kubeconfig: Path, folder: Path) -> Iterator[tuple[Cable, Cluster]]:
    """The same cluster through a cable of the test's own."""
    document = yaml.safe_load(kubeconfig.read_text())
    host, _, port = document["clusters"][0]["cluster"]["server"].rpartition("//")[2].partition(":")
    with socket.create_server(("127.0.0.1", 0)) as server:
        cable = Cable(server, (host, int(port)))
        threading.Thread(target=cable.serve, daemon=True).start()
        document["clusters"][0]["cluster"]["server"] = cable.address
        (folder / "cable.yaml").write_text(yaml.safe_dump(document))
        yield cable, Cluster.open(kubeconfig=str(folder / "cable.yaml"))
        server.shutdown(socket.SHUT_RDWR)


def test_a_cable_pulled_while_a_command_runs(kubeconfig: Path, tmp_path: Path) -> None:
    """No exit status: an error that says so, at once and not after the command's time."""
    with cable_to(kubeconfig, tmp_path) as (cable, cluster):
        timer = threading.Timer(0.5, cable.pull)
        timer.start()
        with pytest.raises(ClusterError, match=r"app/p: the connection ended without an exit status"):
            cluster.exec("app", "p", "main", ["sleep", "5"], timeout=TEN_SECONDS)
        timer.join()
        assert cluster.exec("app", "p", "main", ["true"], timeout=TEN_SECONDS).exit_code == 0


def test_refused_connections(practice: PracticeRange, kubeconfig: Path) -> None:
    """No right, a server that drops or fails: each its own error, none of them an exit code."""
    nobody = Identity("nobody", denied=(("*", "Pod/exec"),))
    with pytest.raises(Forbidden, match="app/p"):
        Cluster.open(kubeconfig=str(practice.kubeconfig_for(nobody))).exec(
            "app", "p", "main", ["true"], timeout=TEN_SECONDS
        )
    cluster = Cluster.open(kubeconfig=str(kubeconfig))
    for act, error in (("drop", Unreachable), ("answer", ClusterError)):
        fault = practice.access.inject(Fault(act, r"/pods/p/exec", status=500))  # type: ignore[arg-type]
        with pytest.raises(error, match="app/p"):
            cluster.exec("app", "p", "main", ["true"], timeout=TEN_SECONDS)
        assert fault.fired == 1
        practice.access.heal()
