"""containerd's events as the engine's, and the ones that containerd could not send."""

from __future__ import annotations

import time

from longshore.errors import NotFound
from longshore.runtime.containerd.client import Client, nanoseconds
from longshore.runtime.containerd.processes import Process, Processes
from longshore.runtime.containerd.proto import containerd_pb2 as pb
from longshore.runtime.containerd.shims import Ended
from longshore.runtime.task import ExitStatus, TaskEvent, TaskEventKind, TaskInfo, TaskStatus

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


def task_info(task: pb.Process) -> TaskInfo:
    """A listed task. Its id is the container's."""
    return TaskInfo(
        task.id or task.container_id,
        task.pid,
        _STATUS.get(task.status, "unknown"),
        task.exit_status,
        nanoseconds(task.exited_at),
    )


def ended_status(process: pb.Process | None) -> ExitStatus | None:
    """How a process ended that is known to have."""
    return None if process is None else ExitStatus(process.exit_status, nanoseconds(process.exited_at))


async def listed(client: Client, ended: Ended) -> dict[str, pb.Process]:
    """The tasks that containerd has, and those that ended behind its back, by their containers' ids."""
    tasks = dict(ended.tasks())
    for task in (await client.list(pb.ListTasksRequest())).tasks:
        tasks[task.id or task.container_id] = task
    return tasks


async def catch_up(client: Client, processes: Processes, ended: Ended) -> list[TaskEvent]:
    """What ended while no events came. Tasks that are new to us are known from now on, without an event."""
    tasks = await listed(client, ended)
    exits: list[TaskEvent] = []
    for process in processes.alive():
        task = tasks.get(process.id)
        if process.exec_id:
            task = await _exec(client, process) or ended.get(process.id, process.exec_id)
        # A process without a pid is being created just now: whoever creates it will hear how that ends.
        if process.pid and (task is None or task.status == pb.STATUS_STOPPED):
            exits.append(_missed(process, task))
    for id, task in tasks.items():
        if processes.get(id) is None:
            stopped = task.status == pb.STATUS_STOPPED
            started = task.status != pb.STATUS_CREATED
            exit = ended_status(task) if stopped else None
            processes.add(Process(id, "", task.pid, started=started, exit=exit))
    return exits


async def _exec(client: Client, process: Process) -> pb.Process | None:
    try:
        request = pb.ProcessRequest(container_id=process.id, exec_id=process.exec_id)
        return (await client.get(request)).process
    except NotFound:
        return None


def _missed(process: Process, ended: pb.Process | None) -> TaskEvent:
    if ended is None:
        return TaskEvent("exit", process.id, process.exec_id, process.pid, _LOST, time.time_ns())
    exited_at = nanoseconds(ended.exited_at)
    return TaskEvent("exit", process.id, process.exec_id, process.pid, ended.exit_status, exited_at)
