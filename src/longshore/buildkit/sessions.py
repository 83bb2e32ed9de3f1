"""Sessions: connections over which a client lets itself be asked for what a build needs.

The client runs a gRPC server on the connection, and we call it. Which services it has, it says when it
connects. A build names its session by an id, and may come before the session does.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable

from google.protobuf.message import DecodeError
from grpclib.client import Channel, Handler, UnaryUnaryMethod
from grpclib.const import Status
from grpclib.exceptions import GRPCError, ProtocolError, StreamTerminatedError
from grpclib.protocol import H2Protocol
from h2.exceptions import H2Error

from longshore.buildkit.proto import session_pb2 as pb
from longshore.buildkit.transport import LimitedProtocol, start_protocol
from longshore.errors import EngineError, InvalidParameter, NotFound, System, Unavailable
from longshore.types.stream import RawConnection

WAIT_FOR_SESSION = 5.0
"""Seconds that a build waits for its session to connect, as in BuildKit."""
HEALTH_INTERVAL = 5.0
HEALTH_TIMEOUT = 15.0
HEALTH_FAILURES = 2

_MOST_SESSIONS = 1000

BROKEN = (GRPCError, StreamTerminatedError, ProtocolError, H2Error, DecodeError, OSError)
"""What calls over a session raise."""

log = logging.getLogger(__name__)


class Session:
    """One client's connection. `methods`: what it serves, as `/service/method` in lower case."""

    def __init__(self, id: str, shared_key: str, methods: Iterable[str]) -> None:
        self.id = id
        self.shared_key = shared_key
        self.methods = frozenset(method.strip().lower() for method in methods)
        self.channel = _SessionChannel()
        self.closed = asyncio.Event()

    def supports(self, method: str) -> bool:
        """Whether the client serves `/service/method`; the case of letters does not matter."""
        return method.lower() in self.methods

    async def run(self, connection: RawConnection, health: float = 0) -> None:
        """Speak over `connection` until it ends, or the client does not answer any more.

        `health`: seconds between questions for the client's health, and for each answer; 0 is the default.
        """
        protocol = LimitedProtocol(Handler(), client=True)
        running = asyncio.create_task(start_protocol(connection, protocol), name="session")
        self.channel.protocol = protocol
        monitor = asyncio.create_task(self._monitor(health), name="session-health")
        try:
            await asyncio.wait([running, monitor], return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.closed.set()
            self.channel.protocol = None
            for task in (running, monitor):
                task.cancel()
            await asyncio.gather(running, monitor, return_exceptions=True)

    async def _monitor(self, health: float) -> None:
        """Return once the client has failed to answer."""
        check = UnaryUnaryMethod(
            self.channel, "/grpc.health.v1.Health/Check", pb.HealthCheckRequest, pb.HealthCheckResponse
        )
        failures = 0
        while failures < (1 if health else HEALTH_FAILURES):
            await asyncio.sleep(health or HEALTH_INTERVAL)
            try:
                await check(pb.HealthCheckRequest(), timeout=health or HEALTH_TIMEOUT)
                failures = 0
            except GRPCError as exc:
                # Who has no such service answers all the same.
                failures = 0 if exc.status is Status.UNIMPLEMENTED else failures + 1
            except BROKEN:  # TimeoutError is an OSError.
                failures += 1
        log.warning("session %r: the client does not answer", self.id)


class _SessionChannel(Channel):
    """A channel with the one connection that there is."""

    def __init__(self) -> None:
        super().__init__("localhost", 80)
        self._authority = "localhost"
        self.protocol: LimitedProtocol | None = None

    async def __connect__(self) -> H2Protocol:
        if self.protocol is None:
            raise ConnectionResetError("the session has ended")
        return self.protocol


class SessionManager:
    """The sessions that are connected, by id. Owned by the event loop's thread."""

    def __init__(self) -> None:
        self._sessions: dict[str, Session] = {}
        self._arrivals: set[asyncio.Event] = set()

    def check(self, id: str) -> None:
        """Raises InvalidParameter if no session of that id may connect."""
        if not id:
            raise InvalidParameter("no session id in request")
        if id in self._sessions:
            raise InvalidParameter(f"session {id} already exists")
        if len(self._sessions) >= _MOST_SESSIONS:
            raise InvalidParameter("too many sessions are connected")

    async def serve(self, session: Session, connection: RawConnection, health: float = 0) -> None:
        """Let builds find `session` until its connection ends. Raises InvalidParameter as `check` does."""
        self.check(session.id)
        self._sessions[session.id] = session
        for event in self._arrivals:
            event.set()  # Who waits goes on only once this task does, in the middle of `run`.
        try:
            await session.run(connection, health)
        finally:
            del self._sessions[session.id]

    async def get(self, id: str, patience: float = WAIT_FOR_SESSION) -> Session:
        """The session of that id, which may be about to connect. Raises NotFound after `patience` seconds.

        A prefix in front of a colon tells contexts apart, and is of no meaning here.
        """
        id = id.partition(":")[2] or id
        if not id:
            raise NotFound("no active session: none is named")
        arrival = asyncio.Event()
        self._arrivals.add(arrival)
        try:
            async with asyncio.timeout(patience):
                while (found := self._sessions.get(id)) is None or found.closed.is_set():
                    arrival.clear()
                    await arrival.wait()
                return found
        except TimeoutError:
            raise NotFound(f"no active session for {id}: context deadline exceeded") from None
        finally:
            self._arrivals.discard(arrival)


def translate(exc: BaseException, doing: str) -> EngineError:
    """The error that a user knows for one of gRPC's."""
    if isinstance(exc, GRPCError):
        message = exc.message or exc.status.name.lower()
        kind: type[EngineError] = System
        if exc.status is Status.NOT_FOUND:
            kind = NotFound
        elif exc.status is Status.INVALID_ARGUMENT:
            kind = InvalidParameter
        return kind(f"{doing}: {message}")
    return Unavailable(f"{doing}: the client's session ended: {str(exc) or type(exc).__name__}")
