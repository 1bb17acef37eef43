"""Containers without a container: volumes as folders, and commands whose paths point into them.

There is no chroot. Wherever a word of a command, an environment value or the working directory begins with a mount
path, the path is replaced by the folder on this machine; read-only mounts are not enforced. Any image is "there".
"""

from __future__ import annotations

import base64
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from practice.kinds import Object
from practice.store import Store
from practice.volumes import Volumes

_CODE = Path(__file__).resolve().parents[1]
_WAITS = ("sh", "-c", "trap 'exit 0' TERM; while :; do sleep 3600 & wait $!; done")
"""What runs for a container without a command: images are not pulled, so their entry point is unknown."""


class NotYet(Exception):
    """A container cannot start for now; ``reason`` is the waiting reason the kubelet would show."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True)
class Container:
    """One container ready to run: where its paths are on this machine, its environment and command."""

    name: str
    mounts: tuple[tuple[str, Path], ...]
    env: dict[str, str]
    command: tuple[str, ...]
    folder: Path
    termination: Path
    log: Path
    tells_log: bool = False
    """Whether the end of its log is its termination message when it fails without one."""

    def rewrite(self, text: str) -> str:
        """The text with every mount path in it replaced by its folder, in one pass; longest mounts first."""
        folders = {mount: str(folder) for mount, folder in self.mounts}
        words = "|".join(re.escape(mount) for mount in folders)
        return re.sub(rf"(?<![\w./-])({words})(?![\w.-])", lambda m: folders[m[1]], text) if words else text

    def argv(self, command: list[str] | tuple[str, ...]) -> list[str]:
        """A command as it runs here; Python is the interpreter of the range."""
        words = [self.rewrite(word) for word in command]
        if Path(words[0]).name in ("python", "python3"):
            words[0] = sys.executable
        return words


_VOLUMES = {"name", "persistentVolumeClaim", "hostPath", "configMap", "secret", "emptyDir", "projected"}
_PROJECTIONS = {"configMap", "secret", "serviceAccountToken"}
_UNKNOWN_OF_CONTAINERS = ("livenessProbe", "startupProbe", "lifecycle", "volumeDevices", "restartPolicy")
_ENTRIES = {"fieldRef", "configMapKeyRef", "secretKeyRef"}


def unsupported(pod: Object, spec: Object) -> str:
    """What a container asks for that would have to be guessed at; empty when there is nothing."""
    volumes = pod["spec"].get("volumes") or []
    sources = [source for volume in volumes for source in volume.get("projected", {}).get("sources", [])]
    found = [f"volumes of kind {kind}" for volume in volumes for kind in sorted(set(volume) - _VOLUMES)]
    found += [f"projected {kind}" for source in sources for kind in sorted(set(source) - _PROJECTIONS)]
    found += [f"a container's {field}" for field in _UNKNOWN_OF_CONTAINERS if field in spec]
    found += ["subPathExpr" for mount in spec.get("volumeMounts") or [] if "subPathExpr" in mount]
    for entry in spec.get("env") or []:
        found += [f"an environment's {kind}" for kind in sorted(set(entry.get("valueFrom") or {}) - _ENTRIES)]
    if "exec" not in spec.get("readinessProbe", {"exec": {}}):
        found.append("readiness probes other than exec")
    return "; ".join(found)


def expand(text: str, env: Mapping[str, str]) -> str:
    """Replace ``$(NAME)`` where the name is known, and ``$$`` by ``$`` (core/v1 Container.command)."""
    return re.sub(r"\$\$|\$\(([\w.-]+)\)", lambda m: "$" if m[0] == "$$" else env.get(m[1], m[0]), text)


class Pods:
    """Prepares containers of pods below ``root``/pods."""

    def __init__(self, store: Store, volumes: Volumes, root: Path) -> None:
        self._store, self._volumes, self._root = store, volumes, root / "pods"

    def folder(self, pod: Object) -> Path:
        """The pod's own folder."""
        return self._root / str(pod["metadata"]["uid"])

    def log(self, pod: Object, container: str) -> Path:
        """Where the container's output goes."""
        return self.folder(pod) / f"{container}.log"

    def container(self, pod: Object, spec: Object) -> Container:
        """Make one container of the pod ready.

        Raises:
            NotYet: A Secret, ConfigMap, claim or image it needs is not there.
        """
        if unknown := unsupported(pod, spec):
            raise NotYet("CreateContainerConfigError", f"the practice range does not know {unknown}")
        image = spec.get("image", "")
        if image.rpartition(":")[2] == "missing":
            if spec.get("imagePullPolicy") == "Never":
                text = f'Container image "{image}" is not present with pull policy of Never'
                raise NotYet("ErrImageNeverPull", text)
            raise NotYet("ErrImagePull", f'failed to pull image "{image}": not found')
        home = self.folder(pod)
        (home / "termination").mkdir(parents=True, exist_ok=True)
        (home / "tmp").mkdir(exist_ok=True)
        mounts: list[tuple[str, Path]] = []
        sources = {volume["name"]: volume for volume in pod["spec"].get("volumes") or []}
        for mount in spec.get("volumeMounts") or []:
            folder = self._volume(pod, sources[mount["name"]])
            if mount.get("subPath"):
                folder = folder / mount["subPath"]
                if not folder.exists():
                    folder.mkdir(parents=True)
            mounts.append((mount["mountPath"].rstrip("/"), folder))
        termination = home / "termination" / spec["name"]
        termination.write_bytes(b"")
        mounts.append((spec.get("terminationMessagePath", "/dev/termination-log"), termination))
        mounts.sort(key=lambda pair: -len(pair[0]))
        tells = spec.get("terminationMessagePolicy") == "FallbackToLogsOnError"
        bare = Container(spec["name"], tuple(mounts), {}, (), home, termination, self.log(pod, spec["name"]), tells)
        env = self._environment(pod, spec, bare)
        words = [*(spec.get("command") or []), *(spec.get("args") or [])] if spec.get("command") else list(_WAITS)
        command = tuple(expand(word, env) for word in words)
        folder = Path(bare.rewrite(spec["workingDir"])) if spec.get("workingDir") else home
        folder = folder if folder.is_dir() else home
        return replace(bare, env=env, command=command, folder=folder)

    def _environment(self, pod: Object, spec: Object, container: Container) -> dict[str, str]:
        namespace, meta = pod["metadata"]["namespace"], pod["metadata"]
        env = {"PATH": os.environ.get("PATH", os.defpath), "HOSTNAME": meta["name"], "HOME": str(container.folder)}
        env["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), env["PATH"]])
        env |= {"LANG": os.environ.get("LANG", "C.UTF-8"), "PYTHONPATH": str(_CODE), "PYTHONUNBUFFERED": "1"}
        temporary = [str(folder) for mount, folder in container.mounts if mount == "/tmp"]
        env["TMPDIR"] = temporary[0] if temporary else str(container.folder / "tmp")
        given: dict[str, str] = {}
        for source in spec.get("envFrom") or []:
            for kind, field in (("configmaps", "configMapRef"), ("secrets", "secretRef")):
                if field in source:
                    found = self._data(kind, namespace, source[field]) or {}
                    given |= {source.get("prefix", "") + key: value.decode() for key, value in found.items()}
        for entry in spec.get("env") or []:
            value = self._value(pod, namespace, entry)
            if value is not None:
                given[entry["name"]] = expand(value, given) if "value" in entry else value
        return env | {name: container.rewrite(value) for name, value in given.items()}

    def _value(self, pod: Object, namespace: str, entry: Object) -> str | None:
        source = entry.get("valueFrom")
        if not source:
            return str(entry.get("value") or "")
        if "fieldRef" in source:
            value: object = pod | {"status": {"podIP": "127.0.0.1", "hostIP": "127.0.0.1"}}
            for part in source["fieldRef"]["fieldPath"].split("."):
                value = value.get(part, "") if isinstance(value, dict) else ""
            return str(value)
        for kind, field in (("configmaps", "configMapKeyRef"), ("secrets", "secretKeyRef")):
            if field in source:
                reference = source[field]
                found = (self._data(kind, namespace, reference) or {}).get(reference["key"])
                if found is None and not reference.get("optional"):
                    text = f"couldn't find key {reference['key']} in {kind[:-1]} {namespace}/{reference['name']}"
                    raise NotYet("CreateContainerConfigError", text)
                return None if found is None else found.decode()
        return None

    def _data(self, kind: str, namespace: str, reference: Object) -> dict[str, bytes] | None:
        name = reference.get("name") or reference.get("secretName", "")
        found = self._store.peek(kind, namespace, name)
        if found is None:
            if reference.get("optional"):
                return None
            raise NotYet("CreateContainerConfigError", f'{kind[:-1]} "{name}" not found')
        if kind == "secrets":
            return {key: base64.b64decode(value) for key, value in (found.get("data") or {}).items()}
        return {key: str(value).encode() for key, value in (found.get("data") or {}).items()}

    def _volume(self, pod: Object, volume: Object) -> Path:
        namespace = pod["metadata"]["namespace"]
        own = self.folder(pod) / "volumes" / str(volume["name"])
        if "persistentVolumeClaim" in volume:
            claim = self._store.read("persistentvolumeclaims", namespace, volume["persistentVolumeClaim"]["claimName"])
            found = self._store.read("persistentvolumes", None, claim["spec"].get("volumeName", ""))
            folder: Path = self._volumes.path(found["spec"].get("csi", {}).get("volumeHandle", ""))
            if not folder.is_dir():
                raise NotYet("ContainerCreating", f"MountVolume failed: volume {folder.name} does not exist")
            return folder
        if "hostPath" in volume:
            return Path(str(volume["hostPath"]["path"]))
        own.mkdir(parents=True, exist_ok=True)
        for kind, field in (("configmaps", "configMap"), ("secrets", "secret")):
            if field in volume:
                self._write(own, self._data(kind, namespace, volume[field]), volume[field].get("items"))
        for source in volume.get("projected", {}).get("sources", []):
            for kind, field in (("configmaps", "configMap"), ("secrets", "secret")):
                if field in source:
                    self._write(own, self._data(kind, namespace, source[field]), source[field].get("items"))
            if "serviceAccountToken" in source:
                (own / source["serviceAccountToken"]["path"]).write_text("practice pods have no rights\n")
        return own

    def _write(self, folder: Path, data: dict[str, bytes] | None, items: list[Object] | None) -> None:
        names = {item["key"]: item["path"] for item in items} if items else {key: key for key in data or {}}
        for key, path in names.items():
            if data is not None and key in data:
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                (folder / path).write_bytes(data[key])
