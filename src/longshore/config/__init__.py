"""The daemon's configuration: dockerd's flags and daemon.json, one typed structure for both.

Knows what may be set and what a value must look like. Must never act on a setting.
"""

from longshore.config.loading import load, reload
from longshore.config.options import (
    DEFAULT_CONFIG_FILE,
    DEFAULT_HOST,
    Config,
    Directive,
    Option,
    RuntimeConfig,
    directives,
)

__all__ = [
    "DEFAULT_CONFIG_FILE",
    "DEFAULT_HOST",
    "Config",
    "Directive",
    "Option",
    "RuntimeConfig",
    "directives",
    "load",
    "reload",
]
