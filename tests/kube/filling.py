"""What the handover tests need: an extract that counts, a process that dies after a write, and a look at the end."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

from kube.cluster import Cluster
from kube.handover import VOLUME, Handover, hydrate_claim
from kube.home import HOME
from kube.marks import FOR_CLAIM, RECOVERED_FROM, RECOVERY
from refloat.application import RUN_LABEL
from refloat.recovery_point import new_id
from tests.contract.given import claim, is_bound, pod, run_pod, sh, until, until_gone, until_phase

Object = dict[str, Any]
CLAIM = "PersistentVolumeClaim"
WRITES = ("create", "patch", "delete", "replace", "apply")
DATA = "/data"


class Died(BaseException):
    """The process is gone: nothing catches this."""


class Mortal:
    """A cluster whose user dies right after its ``last`` write (0: before the first)."""

    def __init__(self, cluster: Cluster, last: int) -> None:
        self._cluster, self._last = cluster, last
        self.writes: list[str] = []

    def __getattr__(self, name: str) -> Any:
        verb = getattr(self._cluster, name)
        if name not in WRITES:
            return verb

        def write(*args: Any, **kwargs: Any) -> Any:
            if len(self.writes) >= self._last:
                raise Died(f"before {name}")
            answer = verb(*args, **kwargs)
            self.writes.append(name)
            if len(self.writes) >= self._last:
                raise Died(f"after {name}")
            return answer

        return write


@dataclass
class Filling:
    """One claim on its way back: hydrating it again is a new run of the same recovery."""

    cluster: Cluster
    namespace: str
    name: str = field(default_factory=lambda: f"data-{secrets.token_hex(4)}")
    point_id: str = field(default_factory=new_id)
    storage_class: str | None = None
    spec: Object = field(default_factory=dict)
    extractions: int = 0

    @property
    def manifest(self) -> Object:
        """The application's claim."""
        return claim(self.namespace, self.name, {"app": "shop"}, **self.spec)

    def extract(self, home_claim: str) -> None:
        """Write one line into the claim, as a mover would: by a pod that mounts it and ends."""
        self.extractions += 1
        name = f"mover-{secrets.token_hex(4)}"
        script = f"echo {self.point_id} >> {DATA}/filled"
        run = pod(HOME, name, script, claims={DATA: home_claim})
        until(self.cluster, "ServiceAccount", "default", HOME, lambda _: True, "default service account")
        self.cluster.create(run)
        until_phase(self.cluster, name, HOME, "Succeeded")
        self.cluster.delete("Pod", name, HOME)

    def hydrate(
        self,
        *,
        cluster: Cluster | Mortal | None = None,
        run: str | None = None,
        extract: Callable[[str], object] | None = None,
    ) -> None:
        """Hydrate the claim in a new run, or in the one given."""
        hydrate_claim(
            cast("Cluster", cluster or self.cluster),
            point_id=self.point_id,
            target_namespace=self.namespace,
            claim_manifest=self.manifest,
            storage_class=self.storage_class,
            requested_bytes=16 << 20,
            data_bytes=17,
            run=run or new_id(),
            extract=extract or self.extract,
        )

    def content(self) -> str:
        """What the application's pods see in the volume."""
        name = f"reader-{secrets.token_hex(4)}"
        run_pod(self.cluster, pod(self.namespace, name, claims={DATA: self.name}))
        try:
            return sh(self.cluster, self.namespace, name, f"cat {DATA}/filled")
        finally:
            self.cluster.delete("Pod", name, self.namespace, grace_seconds=0)

    def assert_done(self) -> Object:
        """The claim is bound to a volume filled once, with its own reclaim policy, and nothing temporary is left."""
        made = self.cluster.get(CLAIM, self.name, self.namespace)
        assert is_bound(made)
        assert made["metadata"]["annotations"][RECOVERED_FROM] == self.point_id
        assert RUN_LABEL not in made["metadata"]["labels"]
        assert self.content() == f"{self.point_id}\n"
        volume = self.cluster.get(VOLUME, made["spec"]["volumeName"])
        assert volume["spec"]["persistentVolumeReclaimPolicy"] == "Delete"
        assert not {RECOVERY, RUN_LABEL} & set(volume["metadata"].get("labels") or {})
        assert FOR_CLAIM not in (volume["metadata"].get("annotations") or {})
        assert list(self.cluster.list(CLAIM, HOME, labels=f"{RECOVERY}={self.point_id}")) == []
        for each in self.cluster.list(VOLUME):
            reference = each["spec"].get("claimRef") or {}
            if reference.get("name", "").startswith("recover-") and self.knows(each):
                until_gone(self.cluster, VOLUME, each["metadata"]["name"])
        return made

    def knows(self, volume: Object) -> bool:
        """Whether a volume was provisioned for this filling's claim in refloat's namespace."""
        return bool(volume["spec"]["claimRef"]["name"] == self.home_name)

    @property
    def home_name(self) -> str:
        """Name of the claim that is filled."""
        return Handover(self.cluster, self.point_id, "", self.namespace, self.manifest).home_name
