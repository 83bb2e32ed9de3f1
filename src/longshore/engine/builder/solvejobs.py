"""The solves that clients of BuildKit's services have under way, by the references that they chose."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from grpclib.const import Status
from grpclib.exceptions import GRPCError

from longshore.buildkit.progress import SolveProgress
from longshore.buildkit.proto import control_pb2 as pb
from longshore.errors import InvalidParameter, NotFound

_PATIENCE = 5.0
"""Seconds that a call waits for the solve that it belongs to."""
_KEPT = 10.0
"""Seconds that a solve which has ended can still be asked for its progress."""

T = TypeVar("T")


class Job:
    """One solve. Owned by the event loop's thread."""

    def __init__(self, request: pb.SolveRequest) -> None:
        self.session = request.Session
        self.entitlements = list(request.Entitlements)
        self.progress = SolveProgress()
        self.ended = False
        self.images: dict[str, str] = {}
        """What the bridge's solves came to, by the references given for them."""
        self.returned: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        """The image that the client's frontend ends with."""
        self._parts: set[asyncio.Task[Any]] = set()

    async def part(self, work: Coroutine[Any, Any, T]) -> T:
        """Do what is of use to this solve alone: cancelled with it. Raises GRPCError then."""
        task = asyncio.create_task(work, name="part of a solve")
        self._parts.add(task)
        task.add_done_callback(self._parts.discard)
        try:
            return await task
        except asyncio.CancelledError:
            caller = asyncio.current_task()
            if self.ended and caller is not None and not caller.cancelling():
                raise GRPCError(Status.CANCELLED, "context canceled") from None
            raise

    def end(self) -> None:
        """Nothing of it goes on."""
        self.ended = True
        self.progress.end()
        self.returned.cancel()
        for task in self._parts:
            task.cancel()


class Jobs:
    """Those under way, and those that have just ended. Owned by the event loop's thread."""

    def __init__(self) -> None:
        self._jobs: dict[str, Job] = {}
        self._arrivals: set[asyncio.Event] = set()

    @contextmanager
    def running(self, request: pb.SolveRequest) -> Iterator[Job]:
        """Let other calls find the solve of that request. Raises InvalidParameter if there is one already."""
        if not request.Ref:
            raise InvalidParameter("a solve needs a reference")
        if request.Ref in self._jobs and not self._jobs[request.Ref].ended:
            raise InvalidParameter(f"job ID {request.Ref} exists")
        job = self._jobs[request.Ref] = Job(request)
        for event in self._arrivals:
            event.set()
        try:
            yield job
        finally:
            job.end()
            asyncio.get_running_loop().call_later(_KEPT, self._forget, request.Ref, job)

    async def find(self, ref: str) -> Job:
        """The solve of that reference, which may be about to begin. Raises NotFound."""
        arrival = asyncio.Event()
        self._arrivals.add(arrival)
        try:
            async with asyncio.timeout(_PATIENCE):
                while ref not in self._jobs:
                    arrival.clear()
                    await arrival.wait()
                return self._jobs[ref]
        except TimeoutError:
            raise NotFound(f"no such job {ref}") from None
        finally:
            self._arrivals.discard(arrival)

    def _forget(self, ref: str, job: Job) -> None:
        if self._jobs.get(ref) is job:
            del self._jobs[ref]
