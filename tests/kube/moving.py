"""What the mover tests need: a vault that both this process and movers reach, runs, and a store that never answers."""

from __future__ import annotations

import os
import secrets
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from kube.cluster import Cluster
from kube.home import HOME, ensure_home, labels_in_run
from kube.jobs import LIMITS, Limits, run_mover
from refloat.application import RUN_LABEL
from refloat.recovery_point import new_id
from refloat.registry import open_object_store
from refloat.transfer import MoverResult, MoverSpec, Progress
from tests.contract.given import claim
from vault.repository import init

PASSWORD = "a password nobody must see"
MINUTE = timedelta(minutes=1)


@dataclass(frozen=True)
class Vault:
    """A vault of the test's own, the image that reaches it, and what a mover is given to do so."""

    url: str
    image: str
    environment: Mapping[str, str] = field(repr=False)


def vault_for(cluster: Cluster, folder: Path) -> Vault:
    """A new vault: a folder of this machine on the practice range, elsewhere a prefix of the environment's store."""
    image = os.environ.get("REFLOAT_MOVER_IMAGE", "")
    url = f"file://{folder / 'vault'}"
    if not cluster.is_practice_range:
        base = os.environ.get("REFLOAT_E2E_VAULT", "")
        if not (image and base):
            pytest.skip("NOT RUN: REFLOAT_MOVER_IMAGE or REFLOAT_E2E_VAULT not set (tests/e2e/README.md)")
        url = f"{base}-jobs-{secrets.token_hex(4)}"
    store = open_object_store(url, os.environ)
    try:
        init(store, PASSWORD)
        environment = {**store.mover_environment(), "REFLOAT_PASSWORD": PASSWORD}
    finally:
        store.close()
    return Vault(url, image or "refloat/mover:any", environment)


def home_claim(cluster: Cluster, run: str, name: str) -> str:
    """A claim in refloat's namespace that belongs to the run; its name."""
    ensure_home(cluster)
    made = claim(HOME, f"{name}-{secrets.token_hex(4)}", labels_in_run(run))
    return str(cluster.create(made)["metadata"]["name"])


@dataclass
class Moving:
    """Movers of one run on one cluster and vault; what they told is kept."""

    cluster: Cluster
    vault: Vault
    run: str = field(default_factory=new_id)
    told: list[Progress] = field(default_factory=list)

    def spec(self, action: str, **fields: Any) -> MoverSpec:
        """What a mover of this run does."""
        return MoverSpec.model_validate(
            {"action": action, "run": self.run, "vault_url": self.vault.url, "volume": "app/data", **fields}
        )

    def move(
        self,
        action: str,
        name: str,
        *,
        image: str | None = None,
        timeout: timedelta = MINUTE,
        limits: Limits = LIMITS,
        environment: Mapping[str, str] | None = None,
        **fields: Any,
    ) -> MoverResult:
        """Run one mover on a claim of refloat's namespace."""
        return run_mover(
            self.cluster,
            self.spec(action, **fields),
            claim=name,
            image=image or self.vault.image,
            secret_env={**self.vault.environment, **(environment or {})},
            labels={},
            timeout=timeout,
            on_progress=self.told.append,
            limits=limits,
        )

    def left(self) -> list[str]:
        """Jobs, pods and Secrets of the run."""
        kinds, mine = ("Job.batch", "Pod", "Secret"), f"{RUN_LABEL}={self.run}"
        return [f"{kind} {o['metadata']['name']}" for kind in kinds for o in self.cluster.list(kind, HOME, labels=mine)]

    def when_it_runs(self, act: Callable[[dict[str, Any]], object]) -> threading.Thread:
        """Do something to the run's first pod as soon as it runs; the thread that does."""

        def wait() -> None:
            for _, pod in self.cluster.watch("Pod", HOME, labels=f"{RUN_LABEL}={self.run}", timeout=MINUTE):
                if pod["status"].get("phase") == "Running":
                    act(pod)
                    return

        thread = threading.Thread(target=wait, name="meddler", daemon=True)
        thread.start()
        return thread


@contextmanager
def silent_store() -> Iterator[str]:
    """The address of a store that takes connections and never answers: whoever asks it is busy for a while."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
