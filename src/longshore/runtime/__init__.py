"""Who runs the process: the TaskRuntime protocol, and one adapter a folder.

Must never know images, networks or the API: it is given a bundle's contents and file descriptors.
"""

from longshore.runtime.task import (
    Attach,
    ExitStatus,
    Metrics,
    RuntimeOptions,
    Stdio,
    TaskEvent,
    TaskEventKind,
    TaskInfo,
    TaskRuntime,
    TaskStatus,
)

__all__ = [
    "Attach",
    "ExitStatus",
    "Metrics",
    "RuntimeOptions",
    "Stdio",
    "TaskEvent",
    "TaskEventKind",
    "TaskInfo",
    "TaskRuntime",
    "TaskStatus",
]
