"""Make a container: everything about it is decided and verified here, nothing runs yet."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
from contextlib import AsyncExitStack

from longshore.containers.container import Container
from longshore.containers.names import generate_name
from longshore.containers.record import ContainerRecord, RecordEndpoint
from longshore.engine.engine import Engine
from longshore.engine.links import verify_links
from longshore.engine.merge import merge_image_config
from longshore.engine.mounts import create_mount_points, release_mount_points
from longshore.engine.networking import DEFAULT_NETWORK
from longshore.engine.verify import (
    adapt_container_settings,
    apply_security_options,
    merge_log_config,
    verify_container_settings,
    verify_networking_config,
)
from longshore.engine.workdir import needs_working_directory, setup_working_directory
from longshore.errors import InvalidParameter, NotFound
from longshore.images.store import Image
from longshore.layers.remove import remove_tree
from longshore.tracing import span
from longshore.types import codec
from longshore.types.container import Config, ContainerCreateRequest, ContainerCreateResponse, HostConfig
from longshore.types.network import EndpointSettings
from longshore.types.timestamp import now


async def container_create(
    engine: Engine,
    name: str,
    request: ContainerCreateRequest,
    platform: str = "",
    *,
    read_only_recursive: bool = True,
    id: str = "",
) -> ContainerCreateResponse:
    """POST /containers/create. An empty name has one generated. Returns the id and Docker's warnings.

    `id` is for who has written down, before it exists, whom the container belongs to (`new_container_id`).
    `read_only_recursive` makes read-only binds so with all that is mounted below, if not said otherwise.

    Raises InvalidParameter for settings that cannot be, NotFound for an image or a container named in
    them that does not exist, Conflict for a name in use.
    """
    config, host_config, endpoints = _split(request)
    default_network_mode(host_config, endpoints)
    warnings = verify_container_settings(engine, host_config, config, update=False)
    verify_networking_config(engine, host_config, endpoints)
    if not config.Image and not config.entrypoint and not config.cmd:
        raise InvalidParameter("no command specified")
    image = _find_image(engine, config.Image, platform)
    merge_image_config(config, image)
    if not config.entrypoint and not config.cmd:
        raise InvalidParameter("no command specified")
    adapt_container_settings(engine, host_config)
    merge_log_config(engine, host_config)

    with engine.traces.record("create", container_id := id or new_container_id()):
        async with AsyncExitStack() as undo:
            name = name or generate_name(engine.containers.name_is_free)
            engine.containers.reserve_name(name, container_id)
            undo.callback(engine.containers.release_name, name, container_id)
            container = _container(engine, container_id, name, config, host_config, image)
            _endpoints(engine, container, endpoints)
            verify_links(engine, host_config.Links or [])
            apply_security_options(container)
            await _make(engine, container, image, undo, read_only_recursive)
            undo.pop_all()
    engine.traces.forget(container_id)
    engine.containers.add(container)
    engine.log_container_event(container, "create")
    return ContainerCreateResponse(container_id, warnings)


def new_container_id() -> str:
    """64 hexadecimal digits."""
    return secrets.token_hex(32)


async def _make(
    engine: Engine, container: Container, image: Image, undo: AsyncExitStack, read_only_recursive: bool
) -> None:
    """Put the container on disk: its directory, its layer, its volumes, its record."""
    with span("layer"):
        undo.push_async_callback(asyncio.to_thread, remove_tree, container.root)
        undo.push_async_callback(asyncio.to_thread, _drop_layer, engine, container.id)
        await asyncio.to_thread(_make_layer, engine, container, image)
    if needs_working_directory(container):
        with span("working directory"):
            await asyncio.to_thread(_make_working_directory, engine, container)
    with span("volumes"):
        undo.push_async_callback(release_mount_points, engine, container, remove_anonymous=True)
        await create_mount_points(engine, container, read_only_recursive=read_only_recursive)
    with span("record"):
        await engine.containers.save(container)


def _make_layer(engine: Engine, container: Container, image: Image) -> None:
    container.root.mkdir(mode=0o710, parents=True, exist_ok=True)
    os.chown(container.root, -1, engine.remapping.root[1])
    engine.layers.create_rw_layer(
        container.id,
        image.chain_id or None,
        mount_label=container.record.MountLabel,
        storage_opt=dict(container.host_config.StorageOpt or {}),
    )


def _make_working_directory(engine: Engine, container: Container) -> None:
    rw_layer = engine.layers.get_rw_layer(container.id)
    rootfs = rw_layer.mount(container.record.MountLabel)
    try:
        setup_working_directory(rootfs, container.config.WorkingDir, engine.layers.ids.root)
    finally:
        rw_layer.unmount()


def _drop_layer(engine: Engine, id: str) -> None:
    try:
        engine.layers.release_rw_layer(engine.layers.get_rw_layer(id))
    except NotFound:
        return  # It was never made.


def _split(request: ContainerCreateRequest) -> tuple[Config, HostConfig, dict[str, EndpointSettings]]:
    fields = {field: getattr(request, field) for field in Config.__struct_fields__}
    networking = request.NetworkingConfig
    asked = (networking.EndpointsConfig if networking is not None else None) or {}
    endpoints = {name: settings or EndpointSettings() for name, settings in asked.items()}
    return Config(**fields), request.HostConfig or HostConfig(), endpoints


def default_network_mode(host_config: HostConfig, endpoints: dict[str, EndpointSettings]) -> None:
    """The default network goes by its name from here on."""
    if host_config.NetworkMode in ("", "default"):
        host_config.NetworkMode = DEFAULT_NETWORK
    if "default" in endpoints:
        endpoints.setdefault(DEFAULT_NETWORK, endpoints.pop("default"))


def _find_image(engine: Engine, name: str, platform: str) -> Image:
    if not name:
        raise InvalidParameter("no image specified")
    image = engine.images.resolve(name)
    if platform:
        wanted = platform.lower().split("/")
        actual = [image.os, image.architecture, image.variant]
        if any(one != other for one, other in zip(wanted, actual, strict=False) if other):
            raise NotFound(
                f"image with reference {name} was found but does not provide the specified platform "
                f"({platform})"
            )
    return image


def _container(
    engine: Engine, id: str, name: str, config: Config, host_config: HostConfig, image: Image
) -> Container:
    if not config.Hostname and not host_config.NetworkMode.startswith("container:"):
        config.Hostname = socket.gethostname() if host_config.NetworkMode == "host" else id[:12]
    words = config.entrypoint + config.cmd
    record = ContainerRecord(
        ID=id,
        Created=now(),
        Path=words[0],
        Args=words[1:],
        Config=config,
        Image=image.id,
        Name="/" + name.removeprefix("/"),
        Driver=engine.layers.driver_name,
    )
    return Container(record, host_config, engine.containers.root / id)


def _endpoints(engine: Engine, container: Container, asked: dict[str, EndpointSettings]) -> None:
    """The networks to connect to at each start: those asked for, or the one that the mode names."""
    mode = container.host_config.NetworkMode
    networks: dict[str, RecordEndpoint] = {}
    if not mode.startswith("container:") and not container.config.NetworkDisabled:
        networks[mode] = RecordEndpoint()
    for name, settings in asked.items():
        endpoint = codec.convert(codec.to_plain(settings), RecordEndpoint)
        endpoint.DesiredMacAddress = settings.MacAddress
        endpoint.MacAddress = ""
        networks[name] = endpoint
    primary = networks.get(mode)
    if primary is not None and container.config.MacAddress and not primary.DesiredMacAddress:
        primary.DesiredMacAddress = container.config.MacAddress
    container.networks.Networks = networks
