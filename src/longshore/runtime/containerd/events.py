"""containerd's events as the engine's, and the ones that containerd could not send."""

from __future__ import annotations

import time

from longshore.runtime.containerd.client import nanoseconds
from longshore.runtime.containerd.processes import Process
from longshore.runtime.containerd.proto import containerd_pb2 as pb
from longshore.runtime.task import TaskEvent, TaskEventKind, TaskInfo, TaskStatus

_NAMED: dict[str, TaskEventKind] = {
    "/tasks/oom": "oom",
    "/tasks/paused": "paused",
    "/tasks/resumed": "resumed",
    "/tasks/checkpointed": "checkpointed",
}
_EXECS: dict[str, TaskEventKind] = {"/tasks/exec-added": "exec-added", "/tasks/exec-started": "exec-started"}
_STATUS: dict[int, TaskStatus] = {
    pb.STATUS_CREATED: "created",
    pb.STATUS_RUNNING: "running",
    pb.STATUS_STOPPED: "stopped",
    pb.STATUS_PAUSED: "paused",
    pb.STATUS_PAUSING: "paused",
}
# What containerd itself reports for a process whose shim is gone: 128 + SIGKILL.
_LOST = 137


def decode(envelope: pb.Envelope) -> TaskEvent | None:
    """The event in an envelope; None for what the engine does not care for (deletions, other topics)."""
    topic, value = envelope.topic, envelope.event.value
    if topic == "/tasks/exit":
        ended = pb.TaskExit.FromString(value)
        exec_id = "" if ended.id == ended.container_id else ended.id
        return TaskEvent(
            "exit", ended.container_id, exec_id, ended.pid, ended.exit_status, nanoseconds(ended.exited_at)
        )
    if topic == "/tasks/create":
        created = pb.TaskCreate.FromString(value)
        return TaskEvent("create", created.container_id, pid=created.pid)
    if topic == "/tasks/start":
        started = pb.TaskStart.FromString(value)
        return TaskEvent("start", started.container_id, pid=started.pid)
    if kind := _EXECS.get(topic):
        exec_ = pb.TaskExec.FromString(value)
        return TaskEvent(kind, exec_.container_id, exec_.exec_id, exec_.pid)
    if kind := _NAMED.get(topic):
        return TaskEvent(kind, pb.TaskNamed.FromString(value).container_id)
    return None


def missed_exit(process: Process, ended: pb.Process | None) -> TaskEvent:
    """The exit of a process that ended while no events came; `ended` is None if containerd lost it."""
    if ended is None:
        return TaskEvent("exit", process.id, process.exec_id, process.pid, _LOST, time.time_ns())
    return TaskEvent(
        "exit", process.id, process.exec_id, process.pid, ended.exit_status, nanoseconds(ended.exited_at)
    )


def task_info(task: pb.Process) -> TaskInfo:
    """A listed task. Its id is the container's."""
    return TaskInfo(
        task.id or task.container_id,
        task.pid,
        _STATUS.get(task.status, "unknown"),
        task.exit_status,
        nanoseconds(task.exited_at),
    )
