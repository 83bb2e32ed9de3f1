"""Plug-ins of Docker's first kind: programs on this machine that answer HTTP on a socket.

Finds them and calls them; knows nothing of what they do. Blocking: use it in threads.
"""

from longshore.plugins.client import MethodMissing, Plugin, PluginFailure, PluginUnreachable
from longshore.plugins.discovery import plugin_names, plugin_of

__all__ = [
    "MethodMissing",
    "Plugin",
    "PluginFailure",
    "PluginUnreachable",
    "plugin_names",
    "plugin_of",
]
