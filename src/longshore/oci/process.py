"""The container's first process: what is run, and with which environment."""

from __future__ import annotations

from collections.abc import Iterable

from longshore.errors import InvalidParameter
from longshore.oci.defaults import INIT_IN_CONTAINER, PATH
from longshore.oci.input import SpecInput
from longshore.types.container import Config


def path_and_args(config: Config) -> tuple[str, list[str]]:
    """Entrypoint and command joined: the program and its arguments, as inspect shows them.

    Raises InvalidParameter if both are empty.
    """
    words = [*config.entrypoint, *config.cmd]
    if not words or (len(words) == 1 and not words[0]):
        raise InvalidParameter("no command specified")
    return words[0], words[1:]


def uses_init(container: SpecInput) -> bool:
    """Whether docker-init is put before the program: only a PID namespace of one's own has a PID 1."""
    wanted = container.host_config.Init
    return container.pid_namespace is None and (container.init if wanted is None else wanted)


def arguments(container: SpecInput) -> list[str]:
    """The words to run."""
    path, args = (container.path, list(container.args)) if container.path else path_and_args(container.config)
    prefix = [INIT_IN_CONTAINER, "--"] if uses_init(container) else []
    return [*prefix, path, *args]


def environment(container: SpecInput) -> list[str]:
    """PATH, HOSTNAME and TERM, then links, then the user's; HOME is the runtime's to add.

    A user's `NAME` without `=` takes the variable away.
    """
    config = container.config
    hostname = container.hostname or config.Hostname
    variables = [f"PATH={PATH}", f"HOSTNAME={hostname}"]
    if config.Tty:
        variables.append("TERM=xterm")
    given = [*(config.Env or []), *container.secret_env]
    return replace_or_append([*variables, *container.link_env], given)


def replace_or_append(defaults: Iterable[str], overrides: Iterable[str]) -> list[str]:
    """Environment `defaults` with `overrides` in the place of those of the same name, or behind them."""
    merged = {variable.partition("=")[0]: variable for variable in defaults}
    for variable in overrides:
        name, equals, _ = variable.partition("=")
        if equals:
            merged[name] = variable
        else:
            merged.pop(name, None)
    return list(merged.values())
