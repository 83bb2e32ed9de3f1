"""The connection to containerd as a thing that lasts: made, watched, made again, events taken up anew."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable

from longshore.errors import EngineError, Unavailable
from longshore.runtime.containerd.client import Client, any_message, translate
from longshore.runtime.containerd.proto import containerd_pb2 as pb
from longshore.runtime.containerd.supervisor import Supervisor

HEALTH_INTERVAL = 2.0
HEALTH_TIMEOUT = 3.0
HEALTH_FAILURES = 3
CONNECT_TIMEOUT = 15.0
BACK_OFF = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
WAIT_FOR_CLIENT = 10.0

_SUBSCRIBED = "/longshore/subscribed"


class Connection:
    """Keeps one client connected. `on_event` gets every task event, `resync` runs after each (re)connect.

    `supervisor` is None for a containerd that is somebody else's: that one is never started nor killed.
    """

    def __init__(
        self,
        address: str,
        namespace: str,
        supervisor: Supervisor | None,
        log: logging.Logger,
        *,
        on_event: Callable[[pb.Envelope], None],
        resync: Callable[[Client], Awaitable[None]],
    ) -> None:
        self._address = address
        self._namespace = namespace
        self._supervisor = supervisor
        self._log = log
        self._on_event = on_event
        self._resync = resync
        self._client: Client | None = None
        self._ready = asyncio.Event()
        self._failure: Exception | None = None
        self._task: asyncio.Task[None] | None = None
        self._events: asyncio.Task[None]

    async def open(self) -> None:
        """Connect for the first time. Raises System or Unavailable if that fails."""
        established: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._run(established), name="containerd-connection")
        try:
            await asyncio.shield(established)
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Disconnect for good."""
        self._ready.clear()
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None
        self._disconnect()

    async def client(self) -> Client:
        """The client; waits for a while if there is none just now. Raises Unavailable."""
        if not self._ready.is_set() and self._task is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ready.wait(), WAIT_FOR_CLIENT)
        if self._client is None or not self._ready.is_set():
            raise Unavailable(f"cannot connect to containerd at {self._address}: {self._failure or 'closed'}")
        return self._client

    async def _run(self, established: asyncio.Future[None]) -> None:
        attempt = 0
        replaced = False
        while True:
            try:
                if self._supervisor is not None:
                    await self._supervisor.run()
                async with self._connected() as client:
                    attempt = 0
                    if not established.done():
                        established.set_result(None)
                    await self._until_broken(client)
            except Exception as exc:
                self._failure = exc if isinstance(exc, EngineError) else translate(exc)
                hangs = isinstance(exc, TimeoutError) and self._supervisor is not None
                if hangs:
                    await self._replace()
                # One found hanging at our own start is replaced as well, but only once.
                if not established.done() and (replaced or not hangs):
                    established.set_exception(self._failure)
                    return
                replaced = hangs
            self._log.warning("lost the connection to containerd: %s", self._failure)
            await asyncio.sleep(BACK_OFF[min(attempt, len(BACK_OFF) - 1)])
            attempt += 1

    @contextlib.asynccontextmanager
    async def _connected(self) -> AsyncIterator[Client]:
        self._client = client = Client(self._address, self._namespace)
        try:
            subscribed = asyncio.Event()
            self._events = asyncio.create_task(self._receive(client, subscribed), name="containerd-events")
            async with asyncio.timeout(CONNECT_TIMEOUT):
                await self._subscribed(client, subscribed)
                await self._resync(client)
            self._ready.set()
            yield client
        finally:
            self._ready.clear()
            self._events.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await self._events
            self._disconnect()

    async def _until_broken(self, client: Client) -> None:
        """Return, or raise what broke, once containerd died, hangs, or its event stream ended."""
        died = asyncio.create_task(self._supervisor.died.wait()) if self._supervisor else None
        failures = 0
        try:
            while True:
                watched = {self._events, died} if died else {self._events}
                done, _ = await asyncio.wait(
                    watched, timeout=HEALTH_INTERVAL, return_when=asyncio.FIRST_COMPLETED
                )
                if died in done:
                    raise Unavailable("containerd exited")
                if self._events in done:
                    self._events.result()
                    raise Unavailable("the event stream ended")
                try:
                    await client.health(pb.HealthCheckRequest(), timeout=HEALTH_TIMEOUT)
                    failures = 0
                except TimeoutError:
                    failures += 1
                if failures >= HEALTH_FAILURES:
                    raise TimeoutError("containerd does not answer")
        finally:
            if died:
                died.cancel()

    async def _receive(self, client: Client, subscribed: asyncio.Event) -> None:
        async with client.events("topic~=|^/tasks/|", f'topic=="{_SUBSCRIBED}"') as envelopes:
            async for envelope in envelopes:
                if envelope.topic == _SUBSCRIBED:
                    subscribed.set()
                    continue
                try:
                    self._on_event(envelope)
                except Exception:
                    self._log.exception("an event of containerd was not understood: %s", envelope.topic)

    async def _subscribed(self, client: Client, subscribed: asyncio.Event) -> None:
        """Wait until the subscription holds: containerd does not tell, so send events until one returns."""
        for _ in range(100):
            await client.publish(
                pb.PublishRequest(topic=_SUBSCRIBED, event=any_message("longshore.Subscribed", pb.Empty())),
                timeout=HEALTH_TIMEOUT,
            )
            waiting = asyncio.ensure_future(subscribed.wait())
            await asyncio.wait({waiting, self._events}, timeout=0.05, return_when=asyncio.FIRST_COMPLETED)
            waiting.cancel()
            if subscribed.is_set():
                return
            if self._events.done():
                self._events.result()
        raise Unavailable("containerd sends no events")

    async def _replace(self) -> None:
        if self._supervisor is not None:
            self._log.error("containerd hangs, killing it")
            await self._supervisor.kill()

    def _disconnect(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None
