"""What a container's configuration takes over from its image."""

from __future__ import annotations

import posixpath

from longshore.errors import InvalidParameter
from longshore.images.store import Image
from longshore.types import codec
from longshore.types.container import Config, HealthConfig


def merge_image_config(config: Config, image: Image) -> None:
    """Fill `config` from the image wherever the user said nothing (moby's daemon/commit.go, merge)."""
    merge_config(config, codec.convert(image.config or {}, Config))


def merge_config(config: Config, of_image: Config) -> None:
    """Fill `config` from another one wherever it says nothing. Raises InvalidParameter."""
    config.User = config.User or of_image.User
    config.WorkingDir = config.WorkingDir or of_image.WorkingDir
    config.StopSignal = config.StopSignal or of_image.StopSignal
    if config.StopTimeout is None:
        config.StopTimeout = of_image.StopTimeout
    config.Shell = config.Shell or of_image.Shell
    config.OnBuild = config.OnBuild or of_image.OnBuild
    if of_image.ExposedPorts:
        config.ExposedPorts = {**of_image.ExposedPorts, **(config.ExposedPorts or {})}
    if of_image.Volumes:
        config.Volumes = {**of_image.Volumes, **(config.Volumes or {})}
    if of_image.Labels:
        config.Labels = {**of_image.Labels, **(config.Labels or {})}
    elif config.Labels is None:
        config.Labels = {}
    config.Env = _merge_env(config.Env, of_image.Env)
    if not config.entrypoint:
        if not config.cmd:
            config.Cmd = of_image.Cmd
            config.ArgsEscaped = of_image.ArgsEscaped
        if config.Entrypoint is None:
            config.Entrypoint = of_image.Entrypoint
    if config.entrypoint == [""]:
        config.Entrypoint = None  # `--entrypoint ""` asks for none
    config.Healthcheck = _merge_health(config.Healthcheck, of_image.Healthcheck)
    if config.WorkingDir and not config.WorkingDir.startswith("/"):
        raise InvalidParameter(
            f"the working directory '{config.WorkingDir}' is invalid, it needs to be an absolute path"
        )
    if config.WorkingDir:
        config.WorkingDir = posixpath.normpath("/" + config.WorkingDir.lstrip("/"))


def _merge_env(asked: list[str] | None, of_image: list[str] | None) -> list[str] | None:
    if not asked:
        return of_image if of_image is not None else asked
    names = {entry.partition("=")[0] for entry in asked}
    return asked + [entry for entry in of_image or [] if entry.partition("=")[0] not in names]


def _merge_health(asked: HealthConfig | None, of_image: HealthConfig | None) -> HealthConfig | None:
    if of_image is None or asked is None:
        return asked or of_image
    for field in ("Test", "Interval", "Timeout", "StartPeriod", "StartInterval", "Retries"):
        if not getattr(asked, field):
            setattr(asked, field, getattr(of_image, field))
    return asked
