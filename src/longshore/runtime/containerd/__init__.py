"""containerd as a task runtime: over gRPC, started as a child or found, watched, its events resumed.

What survives what: containers and their shims survive both the engine and containerd. containerd survives the
engine, and is found again by its pid file. While containerd is down, calls wait a little and then fail with
Unavailable; after each reconnect the event stream is taken up first and the tasks are listed second, so that
no exit is missed, and each is reported once.
"""

from longshore.runtime.containerd.runtime import ContainerdRuntime

__all__ = ["ContainerdRuntime"]
