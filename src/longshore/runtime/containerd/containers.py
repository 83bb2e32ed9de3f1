"""containerd's containers: a task needs one to run in, and the two come and go together."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from signal import SIGKILL

from longshore.errors import Conflict, NotFound
from longshore.runtime.containerd.client import Client, any_json, nanoseconds, runc_options
from longshore.runtime.containerd.proto import containerd_pb2 as pb
from longshore.runtime.task import ExitStatus, RuntimeOptions


async def create_container(
    client: Client, id: str, spec: bytes, runtime: RuntimeOptions, labels: Mapping[str, str]
) -> None:
    """Make the container, in the place of one that does not run. Raises Conflict if it does."""
    container = pb.Container(
        id=id,
        labels=labels,
        runtime=pb.Container.Runtime(name=runtime.type, options=runc_options(runtime)),
        spec=any_json("Spec", spec),
    )
    request = pb.CreateContainerRequest(container=container)
    try:
        await client.container_create(request)
    except Conflict:
        # Left over by an engine that died: in the way only if it still runs.
        created = False
        with contextlib.suppress(NotFound):
            found = (await client.get(pb.ProcessRequest(container_id=id))).process
            created = found.status == pb.STATUS_CREATED
            if found.status != pb.STATUS_STOPPED and not created:
                raise Conflict(f"Container {id} is already active") from None
        await remove(client, id, force=created)
        await client.container_create(request)


async def remove(client: Client, id: str, *, force: bool) -> ExitStatus | None:
    """Delete task and container, whichever there are; `force` kills first what still runs.

    A created process is killed, too: a shim that deletes it as it is waits 2 s for its output to end.
    Returns how the task ended, None if there was none. Raises Conflict if it runs.
    """
    request = pb.ProcessRequest(container_id=id)
    reply: pb.DeleteResponse | None = None
    if force:
        with contextlib.suppress(NotFound):
            await client.kill(pb.KillRequest(container_id=id, signal=SIGKILL, all=True))
            await client.wait(request)
    with contextlib.suppress(NotFound):
        reply = await client.delete(request)
    with contextlib.suppress(NotFound):
        await client.container_delete(pb.DeleteContainerRequest(id=id))
    return exit_status(reply)


def exit_status(reply: pb.DeleteResponse | None) -> ExitStatus | None:
    """How a deleted process ended, as containerd tells it."""
    return ExitStatus(reply.exit_status, nanoseconds(reply.exited_at)) if reply is not None else None
