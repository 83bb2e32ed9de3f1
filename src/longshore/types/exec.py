"""Further processes in a running container, as the Engine API describes them."""

from __future__ import annotations

from longshore.types.codec import ApiStruct, names
from longshore.types.container import StrSlice


class ExecCreateRequest(ApiStruct):
    """Body of POST /containers/{id}/exec. `ConsoleSize` is height and width, in characters."""

    User: str = ""
    Privileged: bool = False
    Tty: bool = False
    ConsoleSize: list[int] | None = None
    AttachStdin: bool = False
    AttachStderr: bool = False
    AttachStdout: bool = False
    DetachKeys: str = ""
    Env: list[str] | None = None
    WorkingDir: str = ""
    Cmd: StrSlice = None

    def __post_init__(self) -> None:
        if isinstance(self.Cmd, str):
            self.Cmd = [self.Cmd]


class ExecCreateResponse(ApiStruct):
    """Answer to POST /containers/{id}/exec."""

    Id: str


class ExecStartRequest(ApiStruct):
    """Body of POST /exec/{id}/start. `Tty` tells whether the stream is raw or multiplexed."""

    Detach: bool = False
    Tty: bool = False
    ConsoleSize: list[int] | None = None


class ExecProcessConfig(ApiStruct):
    """What an exec runs."""

    _omitempty = names("user")
    tty: bool = False
    entrypoint: str = ""
    arguments: list[str] | None = None
    privileged: bool = False
    user: str = ""


class ExecInspect(ApiStruct, kw_only=True):
    """Answer to GET /exec/{id}/json. `ExitCode` is null until the process has ended."""

    ID: str
    Running: bool
    ExitCode: int | None
    ProcessConfig: ExecProcessConfig
    OpenStdin: bool
    OpenStderr: bool
    OpenStdout: bool
    CanRemove: bool = False
    ContainerID: str
    DetachKeys: str = ""
    """The bytes of the detach keys in base64."""
    Pid: int
