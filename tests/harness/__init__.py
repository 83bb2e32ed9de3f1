"""What the tests and the benchmarks stand on: daemons, clients, images, a terminal, a look at the machine."""

from harness.cli import DockerCLI, daemon_message
from harness.daemon import Daemon, Dockerd, Longshored, StartFailure
from harness.http import Client, Hijacked, Response
from harness.images import Busybox, Layer, docker_archive, find_busybox, oci_archive
from harness.machine import Machine
from harness.session import SessionPeer
from harness.terminal import Terminal

__all__ = [
    "Busybox",
    "Client",
    "Daemon",
    "DockerCLI",
    "Dockerd",
    "Hijacked",
    "Layer",
    "Longshored",
    "Machine",
    "Response",
    "SessionPeer",
    "StartFailure",
    "Terminal",
    "daemon_message",
    "docker_archive",
    "find_busybox",
    "oci_archive",
]
