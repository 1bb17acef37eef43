"""`Cluster`, the one handle to one API server, and the only importer of the Kubernetes client library.

The library is used for what is hard to redo: kubeconfig, exec plug-ins, in-cluster identity, TLS. Objects are plain
dicts as JSON; kinds are spelt ``Kind`` or ``Kind.group`` and resolved by API discovery.
"""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from kubernetes import config
from kubernetes.client import ApiClient, Configuration
from kubernetes.config.config_exception import ConfigException

from kube import watching
from kube.exec import ExecResult, connect, run_in_pod
from kube.kinds import Kind, name_of, served_kinds
from kube.sessions import ExecSession
from kube.transport import Transport
from refloat.errors import ConfigError, Expired, ObjectMissing

PAGE = 500
CONFIG: Any = config  # the library carries no types
POOL = 32
SESSION_OPENS_WITHIN = timedelta(seconds=10)
Object = dict[str, Any]


class Cluster:
    """One API server under one identity. Safe from several threads.

    Every verb raises ``Unreachable``, ``Forbidden``, ``ObjectMissing``, ``ObjectExists``, ``Conflict`` or
    ``Rejected`` of ``refloat.errors``; nothing of the client library leaves it.
    """

    def __init__(self, client: ApiClient, name: str) -> None:
        self.name = name
        self._configuration: Configuration = client.configuration
        self.server: str = self._configuration.host.rstrip("/")
        self._client = client
        self._transport = Transport(client.rest_client.pool_manager, self.server, self._headers)
        self._kinds: dict[str, Kind] | None = None
        self._guard = threading.Lock()

    @classmethod
    def open(cls, *, kubeconfig: str | None = None, context: str | None = None) -> Cluster:
        """The cluster of a kubeconfig's context; without a kubeconfig, the one this process runs in.

        Raises:
            ObjectMissing: The kubeconfig has no such context.
            ConfigError: The file is missing or no kubeconfig.
        """
        configuration = Configuration()
        configuration.connection_pool_maxsize = POOL
        try:
            contexts, current = CONFIG.list_kube_config_contexts(config_file=kubeconfig)
        except (ConfigException, OSError, ValueError) as wrong:
            if kubeconfig is None and context is None and Path("/var/run/secrets/kubernetes.io").exists():
                CONFIG.load_incluster_config(client_configuration=configuration)
                return cls(ApiClient(configuration), "in-cluster")
            raise ConfigError(
                f"no usable kubeconfig{f' at {kubeconfig}' if kubeconfig else ''}: {wrong}",
                guidance="Give --kubeconfig or set KUBECONFIG.",
            ) from wrong
        name = context or (current or {}).get("name", "")
        known = [each["name"] for each in contexts]
        if name not in known:
            raise ObjectMissing(f"no context {name!r} in the kubeconfig; there are: {', '.join(known)}")
        try:
            CONFIG.load_kube_config(
                config_file=kubeconfig, context=name, client_configuration=configuration, persist_config=False
            )
        except (ConfigException, OSError, ValueError) as wrong:
            raise ConfigError(f"the kubeconfig's context {name!r} cannot be used: {wrong}") from wrong
        return cls(ApiClient(configuration), name)

    def _headers(self) -> Mapping[str, str]:
        headers: dict[str, str] = {"User-Agent": "refloat"}
        self._client.update_params_for_auth(headers, [], ["BearerToken"], "", "GET", None)
        return headers

    # ---- kinds

    def kinds(self) -> list[Kind]:
        """Every kind the server serves; read once."""
        with self._guard:
            if self._kinds is None:
                self._kinds = {kind.name: kind for kind in served_kinds(lambda path: self._transport.call("GET", path))}
            return list(self._kinds.values())

    def serves(self, kind: str) -> bool:
        """Whether the server serves this kind in any version."""
        self.kinds()
        return kind in (self._kinds or {})

    def kind_of(self, kind: str) -> Kind:
        """The served kind of that name; a kind that is not there is looked for once more (a CRD may be new)."""
        for _ in range(2):
            if self.serves(kind):
                return (self._kinds or {})[kind]
            with self._guard:
                self._kinds = None
        raise ObjectMissing(
            f"{self.name} serves no kind {kind}", guidance="Install what brings this kind, or exclude it."
        )

    def version(self) -> str:
        """The server's gitVersion, for example ``v1.36.3``."""
        return str(self._transport.call("GET", "/version")["gitVersion"])

    @property
    def is_practice_range(self) -> bool:
        """Whether this is refloat's practice range and no real cluster; the server says so."""
        return self.version().endswith("-practice")

    # ---- reading

    def get(self, kind: str, name: str, namespace: str | None = None) -> Object:
        """One object; ``ObjectMissing`` when it is not there."""
        return dict(self._transport.call("GET", self.kind_of(kind).path(namespace, name)))

    def find(self, kind: str, name: str, namespace: str | None = None) -> Object | None:
        """One object, or None when it is not there."""
        served = self.kind_of(kind)
        try:
            return dict(self._transport.call("GET", served.path(namespace, name)))
        except ObjectMissing:
            return None

    def list(self, kind: str, namespace: str | None = None, *, labels: str = "", fields: str = "") -> Iterator[Object]:
        """Every object of a kind, in pages of 500; each carries its apiVersion and kind.

        A token that expires between pages (410) starts the list over: what was given before is not given twice.
        """
        served, seen, token = self.kind_of(kind), set[str](), ""
        while True:
            query = {"labelSelector": labels, "fieldSelector": fields, "limit": PAGE, "continue": token}
            try:
                page = self._transport.call("GET", served.path(namespace), query=query)
            except Expired:
                token = ""
                continue
            for item in page.get("items") or []:
                uid = item["metadata"].get("uid") or item["metadata"]["name"]
                if uid not in seen:
                    seen.add(uid)
                    yield {"apiVersion": served.api_version, "kind": served.kind, **item}
            token = page.get("metadata", {}).get("continue", "")
            if not token:
                return

    def watch(
        self,
        kind: str,
        namespace: str | None = None,
        *,
        labels: str = "",
        fields: str = "",
        timeout: timedelta,
        resource_version: str = "",
    ) -> Iterator[tuple[str, Object]]:
        """(ADDED, MODIFIED or DELETED, object) as they come, for at most ``timeout``."""
        return watching.events(
            self._transport, self.kind_of(kind), namespace,
            labels=labels, fields=fields, timeout=timeout, resource_version=resource_version,
        )  # fmt: skip

    def wait(
        self,
        kind: str,
        name: str,
        namespace: str | None,
        until: Callable[[Object | None], bool],
        *,
        timeout: timedelta,
        what: str,
    ) -> Object | None:
        """The object once ``until`` says yes of it (None: it is absent); ``NotReady`` when it does not in time."""
        return watching.wait_until(
            self._transport, self.kind_of(kind), namespace, name, until,
            find=lambda: self.find(kind, name, namespace), timeout=timeout, what=what,
        )  # fmt: skip

    def log_lines(self, namespace: str, pod: str, container: str, *, follow: bool = True) -> Iterator[str]:
        """The container's output, line by line; with ``follow`` until it ends."""
        path = self.kind_of("Pod").path(namespace, pod, subresource="log")
        query = {"container": container, "follow": "true" if follow else ""}
        for line in self._transport.lines(path, query=query, read_seconds=3600):
            yield line.decode(errors="replace")

    # ---- writing

    def create(self, obj: Mapping[str, Any], *, dry_run: bool = False) -> Object:
        """Create it; ``ObjectExists`` when the name is taken."""
        served, query = self.kind_of(name_of(obj)), {"dryRun": "All" if dry_run else ""}
        return dict(self._transport.call("POST", served.path(namespace_of(obj)), query=query, body=obj))

    def replace(self, obj: Mapping[str, Any]) -> Object:
        """PUT it; ``Conflict`` when its resourceVersion is no longer the newest."""
        served = self.kind_of(name_of(obj))
        return dict(self._transport.call("PUT", served.path(namespace_of(obj), obj["metadata"]["name"]), body=obj))

    def apply(
        self, obj: Mapping[str, Any], *, manager: str = "refloat", force: bool = False, dry_run: bool = False
    ) -> Object:
        """Server-side apply; ``Conflict`` when another manager owns a field and ``force`` is not given."""
        served = self.kind_of(name_of(obj))
        query = {"fieldManager": manager, "force": "true" if force else "false", "dryRun": "All" if dry_run else ""}
        path = served.path(namespace_of(obj), obj["metadata"]["name"])
        return dict(self._transport.call("PATCH", path, query=query, body=obj, content="application/apply-patch+yaml"))

    def patch(
        self,
        kind: str,
        name: str,
        namespace: str | None,
        patch: Mapping[str, Any] | Sequence[Any],
        *,
        subresource: str | None = None,
        dry_run: bool = False,
    ) -> Object:
        """A merge patch (mapping, RFC 7386) or a JSON patch (list, RFC 6902)."""
        content = "application/merge-patch+json" if isinstance(patch, Mapping) else "application/json-patch+json"
        path = self.kind_of(kind).path(namespace, name, subresource=subresource)
        query = {"dryRun": "All" if dry_run else ""}
        return dict(self._transport.call("PATCH", path, query=query, body=patch, content=content))

    def delete(
        self,
        kind: str,
        name: str,
        namespace: str | None = None,
        *,
        propagation: str = "Background",
        uid: str | None = None,
        resource_version: str | None = None,
        grace_seconds: int | None = None,
    ) -> bool:
        """Ask for its deletion; False when it was gone already. With ``uid`` only that very object.

        With ``resource_version`` only as it was then: ``Conflict`` when it has changed since.
        """
        body: dict[str, Any] = {"propagationPolicy": propagation}
        preconditions = {"uid": uid, "resourceVersion": resource_version}
        if uid or resource_version:
            body["preconditions"] = {name: value for name, value in preconditions.items() if value}
        if grace_seconds is not None:
            body["gracePeriodSeconds"] = grace_seconds
        try:
            self._transport.call("DELETE", self.kind_of(kind).path(namespace, name), body=body)
        except ObjectMissing:
            return False
        return True

    # ---- rights and commands

    def allowed(
        self,
        verb: str,
        kind: str,
        namespace: str | None = None,
        *,
        name: str | None = None,
        subresource: str | None = None,
    ) -> bool:
        """Whether this identity may do it (SelfSubjectAccessReview)."""
        served = self.kind_of(kind)
        wanted = {
            "verb": verb, "group": served.group, "version": served.version, "resource": served.plural,
            "namespace": namespace or "", "name": name or "", "subresource": subresource or "",
        }  # fmt: skip
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": {k: v for k, v in wanted.items() if v}},
        }
        path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
        return bool(self._transport.call("POST", path, body=review)["status"]["allowed"])

    def exec(
        self,
        namespace: str,
        pod: str,
        container: str,
        command: Sequence[str],
        *,
        timeout: timedelta,
        stdin: bytes | None = None,
    ) -> ExecResult:
        """Run a command in a container and wait for its end; see ``kube.exec``."""
        url, what = self._exec_url(namespace, pod, container, command, stdin=stdin is not None)
        return run_in_pod(url, self._headers(), self._tls(), timeout=timeout, stdin=stdin, what=what)

    def session(self, namespace: str, pod: str, container: str, command: Sequence[str]) -> ExecSession:
        """Start a command in a container and stay in touch with it; see ``kube.sessions``."""
        url, what = self._exec_url(namespace, pod, container, command, stdin=True)
        return ExecSession(connect(url, self._headers(), self._tls(), SESSION_OPENS_WITHIN, what), what)

    def _exec_url(
        self, namespace: str, pod: str, container: str, command: Sequence[str], *, stdin: bool
    ) -> tuple[str, str]:
        query = {
            "container": container, "command": [*command], "stdout": "true", "stderr": "true",
            "stdin": "true" if stdin else "",
        }  # fmt: skip
        path = self.kind_of("Pod").path(namespace, pod, subresource="exec")
        return self._transport.url(path, query), f"exec in {namespace}/{pod}"

    def _tls(self) -> dict[str, Any]:
        """The connection's TLS settings as websocket-client takes them; empty for plain HTTP."""
        if not self.server.startswith("https"):
            return {}
        from_file = {
            "ca_certs": self._configuration.ssl_ca_cert,
            "certfile": self._configuration.cert_file,
            "keyfile": self._configuration.key_file,
            "server_hostname": self._configuration.tls_server_name,
        }
        required = ssl.CERT_REQUIRED if self._configuration.verify_ssl else ssl.CERT_NONE
        return {"cert_reqs": required, **{k: v for k, v in from_file.items() if v}}


def namespace_of(obj: Mapping[str, Any]) -> str | None:
    """The namespace an object says it is in."""
    namespace = obj["metadata"].get("namespace")
    return str(namespace) if namespace else None
