"""Apache Cassandra from its Maven artifacts: its programs, and `python -m tests.tools.cassandra`, which gets it."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

from tests.tools import restic

VERSION = "5.0.6"
OURS = restic.OURS.parents[1] / f"cassandra-{VERSION}"
POM = f"""<project><modelVersion>4.0.0</modelVersion><groupId>refloat</groupId><artifactId>tests</artifactId>
<version>1</version><dependencies><dependency><groupId>org.apache.cassandra</groupId>
<artifactId>cassandra-all</artifactId><version>{VERSION}</version></dependency></dependencies></project>
"""
EXPORTED = (
    "java.base/jdk.internal.misc", "java.base/java.lang.ref", "java.management.rmi/com.sun.jmx.remote.internal.rmi",
    "java.rmi/sun.rmi.registry", "java.rmi/sun.rmi.server", "java.rmi/sun.rmi.transport",
    "java.rmi/sun.rmi.transport.tcp", "java.sql/java.sql", "jdk.unsupported/sun.misc", "jdk.attach/sun.tools.attach",
)  # fmt: skip
OPENED = (
    "java.base/java.io", "java.base/java.lang", "java.base/java.lang.module", "java.base/java.lang.reflect",
    "java.base/java.nio", "java.base/java.util", "java.base/java.util.concurrent",
    "java.base/java.util.concurrent.atomic", "java.base/jdk.internal.loader", "java.base/jdk.internal.math",
    "java.base/jdk.internal.module", "java.base/jdk.internal.ref", "java.base/jdk.internal.reflect",
    "java.base/jdk.internal.util.jar", "java.base/sun.nio.ch", "jdk.management/com.sun.management.internal",
)  # fmt: skip
"""What Cassandra's own conf/jvm17-server.options opens to it."""
YAML = """cluster_name: refloat
num_tokens: 1
partitioner: org.apache.cassandra.dht.Murmur3Partitioner
endpoint_snitch: SimpleSnitch
commitlog_sync: periodic
commitlog_sync_period: 10000ms
seed_provider:
  - class_name: org.apache.cassandra.locator.SimpleSeedProvider
    parameters: [{{seeds: "127.0.0.1:{peer}"}}]
listen_address: 127.0.0.1
rpc_address: 127.0.0.1
storage_port: {peer}
native_transport_port: {port}
"""
LOGBACK = """<configuration><appender name="out" class="ch.qos.logback.core.ConsoleAppender"><encoder>
<pattern>%-5level %msg%n</pattern></encoder></appender>
<root level="WARN"><appender-ref ref="out"/></root></configuration>
"""
TOOL, DAEMON = "org.apache.cassandra.tools.NodeTool", "org.apache.cassandra.service.CassandraDaemon"


def find() -> Path | None:
    """Its folder, when it is there and a Java that runs it."""
    return OURS if OURS.exists() and shutil.which("java") else None


def provide() -> str | None:
    """Put it into .tools where there is none; None when there is one now, else why not."""
    if find() is not None:
        return None
    if shutil.which("mvn") is None or shutil.which("java") is None:
        return "Maven or Java is not installed"
    print(f"getting Cassandra {VERSION} (once, half a minute)", flush=True)
    OURS.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=OURS.parent) as folder:
        made = Path(folder)
        (made / "pom.xml").write_text(POM)
        words = ["mvn", "-B", "-q", "-f", f"{made}/pom.xml", "dependency:copy-dependencies", "-DincludeScope=runtime"]
        reason = restic.run([*words, f"-DoutputDirectory={made}/new/lib"], {})
        if reason is None:
            (made / "new/bin").mkdir()
            nodetool = made / "new/bin/nodetool"
            nodetool.write_text(f'#!/bin/sh\nexec {java("-Xmx64m", "-XX:TieredStopAtLevel=1")} {TOOL} "$@"\n')
            nodetool.chmod(0o755)
            (made / "new").rename(OURS)
    return reason


def java(*options: str) -> str:
    """A command line of Java up to the class's name."""
    opened = [word for each in EXPORTED for word in ("--add-exports", f"{each}=ALL-UNNAMED")]
    opened += [word for each in OPENED for word in ("--add-opens", f"{each}=ALL-UNNAMED")]
    return " ".join(("java", *opened, *options, "-cp", f"'{OURS}/lib/*'"))


def command(folder: Path, port: int, peer: int, management: int) -> str:
    """The shell command of a node of its own on loopback: clients' port, peers' port, nodetool's port."""
    (folder / "cassandra.yaml").write_text(YAML.format(port=port, peer=peer))
    (folder / "logback.xml").write_text(LOGBACK)
    (folder / "tmp").mkdir()
    settings = {
        "cassandra.config": f"file://{folder}/cassandra.yaml", "cassandra.storagedir": f"{folder}/data",
        "cassandra.jmx.local.port": management, "cassandra-foreground": "yes", "cassandra.ring_delay_ms": 1,
        "cassandra.skip_wait_for_gossip_to_settle": 0, "logback.configurationFile": f"{folder}/logback.xml",
        "jdk.attach.allowAttachSelf": "true", "java.io.tmpdir": f"{folder}/tmp",
    }  # fmt: skip
    given = [f"-D{key}={value}" for key, value in settings.items()]
    return f"{java('-Xms384m', '-Xmx384m', '-XX:+UseSerialGC', *given)} {DAEMON}"


def path() -> str:
    """A PATH on which its nodetool comes first."""
    return f"{OURS}/bin:{os.environ['PATH']}"


if __name__ == "__main__":
    why_not = provide()
    if why_not is not None:
        sys.exit(f"NOT RUN: Cassandra: {why_not}")
