"""The engine: every part of it in one place, for the verbs to compose."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from longshore.config import Config
from longshore.containers.container import Container
from longshore.containers.store import ContainerStore
from longshore.engine.userns import NOT_REMAPPED, Remapping
from longshore.events import EventBus
from longshore.images.service import ImageService
from longshore.layers.store import LayerStore
from longshore.linux.host import HostFacts
from longshore.logs.driver import LogDriver
from longshore.logs.pump import LogPump
from longshore.logs.streams import ContainerStreams
from longshore.network.controller import NetworkController
from longshore.runtime.task import TaskRuntime
from longshore.tracing import TraceStore
from longshore.types.container import HostConfig
from longshore.volumes.service import VolumeService

if TYPE_CHECKING:
    from longshore.buildkit.sessions import SessionManager
    from longshore.engine.builder.cachemounts import CacheMounts
    from longshore.engine.builder.control import BuildKit
    from longshore.engine.builder.jobs import BuildJobs
    from longshore.engine.exec import Exec
    from longshore.images.registry.service import RegistryService

log = logging.getLogger(__name__)


@dataclass
class Engine:
    """What a verb needs. Built by `longshore.daemon`; owned by the event loop's thread."""

    config: Config
    host: HostFacts
    id: str
    """The daemon's identity, kept over restarts (`docker info`'s ID)."""
    containers: ContainerStore
    images: ImageService
    layers: LayerStore
    volumes: VolumeService
    networks: NetworkController
    runtime: TaskRuntime
    pump: LogPump
    events: EventBus
    traces: TraceStore
    remapping: Remapping = NOT_REMAPPED
    """The user namespace of containers that do not ask for the host's."""
    seccomp_profile: str = ""
    """The daemon's default: empty for the built-in one, `unconfined`, or JSON."""
    shutting_down: bool = False
    streams: dict[str, ContainerStreams] = field(default_factory=dict)
    logs: dict[str, LogDriver] = field(default_factory=dict)
    """The log each running container writes, by container id."""
    execs: dict[str, Exec] = field(default_factory=dict)
    """Further processes in containers, by their own ids."""
    health_monitors: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    """Who probes the health of each container, by container id."""
    background: set[asyncio.Task[Any]] = field(default_factory=set)

    @cached_property
    def cache_mounts(self) -> CacheMounts:
        """The cache mounts that builds have in use."""
        from longshore.engine.builder.cachemounts import CacheMounts

        return CacheMounts()

    @cached_property
    def build_jobs(self) -> BuildJobs:
        """The builds under way that other requests refer to."""
        from longshore.engine.builder.jobs import BuildJobs

        return BuildJobs()

    @cached_property
    def buildkit(self) -> BuildKit:
        """BuildKit's services, for clients that speak gRPC."""
        from longshore.engine.builder.control import BuildKit

        return BuildKit(self)

    @cached_property
    def sessions(self) -> SessionManager:
        """The sessions that clients hold open for their builds."""
        from longshore.buildkit.sessions import SessionManager

        return SessionManager()

    @cached_property
    def registry(self) -> RegistryService:
        """The registry client, made on first use: many daemons never pull."""
        from longshore.engine.registries import registry_settings
        from longshore.images.registry.service import RegistryService

        return RegistryService(self.data_root, self.images, lambda: registry_settings(self.config))

    @property
    def data_root(self) -> Path:
        """What survives a reboot."""
        return Path(self.config.data_root)

    @property
    def exec_root(self) -> Path:
        """What does not."""
        return Path(self.config.exec_root)

    def is_remapped(self, host_config: HostConfig) -> bool:
        """Whether a container of these settings has an ordinary user for its root."""
        return bool(self.remapping.uids) and host_config.UsernsMode != "host"

    def streams_of(self, container: Container) -> ContainerStreams:
        """The container's output and input, made on first use: a client may attach before the start."""
        streams = self.streams.get(container.id)
        if streams is None:
            streams = self.streams[container.id] = ContainerStreams(self.pump, tty=container.config.Tty)
        return streams

    def spawn(self, work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        """Run `work` beside everything else; a failure is logged, a shutdown waits for it."""
        task = asyncio.create_task(work, name=name)
        self.background.add(task)
        task.add_done_callback(self._finished)
        return task

    def _finished(self, task: asyncio.Task[Any]) -> None:
        self.background.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("%s failed: %s", task.get_name(), error, exc_info=error)

    def log_container_event(self, container: Container, action: str, **attributes: str) -> None:
        """Tell listeners what happened to a container, with the attributes Docker gives."""
        self.events.publish(
            "container",
            action,
            container.id,
            {
                **(container.config.Labels or {}),
                "image": container.config.Image,
                "name": container.name,
                **attributes,
            },
        )
