"""POST /grpc: BuildKit's Control and LLBBridge services, as far as buildx and Compose need them.

A client begins a solve (Control.Solve) and runs its frontend in it (LLBBridge), for which the engine's own
builder stands. Graphs of a client's own making (LLB) are not solved. Control.Status tells how a solve goes.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import secrets
from collections.abc import Mapping
from typing import Any

import msgspec
from grpclib.const import Cardinality, Handler, Status
from grpclib.exceptions import GRPCError
from grpclib.server import Stream

from longshore import __version__
from longshore.buildkit import server
from longshore.buildkit.proto import control_pb2 as pb
from longshore.buildkit.sessions import Session
from longshore.engine.builder.cachemounts import BuildCacheRecord, PruneLimits, build_cache, build_prune
from longshore.engine.builder.frontend import FRONTEND, NETWORK_HOST, frontend_options
from longshore.engine.builder.solve import Output, SolveFailed, check_outputs, export, solve
from longshore.engine.builder.solvejobs import Job, Jobs
from longshore.engine.engine import Engine
from longshore.errors import EngineError, InvalidParameter, NotFound
from longshore.images.registry.platforms import host_platform
from longshore.network.files import host_gateways
from longshore.types.stream import RawConnection
from longshore.types.timestamp import parse_rfc3339

_CONTROL = "/moby.buildkit.v1.Control/"
_BRIDGE = "/moby.buildkit.v1.frontend.LLBBridge/"
_BUILD_ID = "buildkit-controlapi-buildid"
_LARGEST_SHOWN = 128 << 10
"""Bytes of a Dockerfile that goes with an error, in its header."""

_FRONTEND_CAPS = (
    "solve.base solve.inlinereturn return returnmap proto.refarray readfile statfile frontend.caps "
    "gateway.solve.metadata gateway.evaluate gateway.solve.evaluate"
)
_LLB_CAPS = (
    "source.image source.image.resolvemode source.local source.local.unique source.local.sessionid "
    "source.local.includepatterns source.local.followpaths source.local.excludepatterns "
    "source.local.sharedkeyhint source.git source.http exec.meta.base exec.meta.network exec.meta.ulimit "
    "exec.mount.bind exec.mount.cache exec.mount.cache.sharing exec.mount.tmpfs exec.mount.tmpfs.size "
    "exec.mount.secret exec.mount.ssh exec.secretenv file.base constraints platform meta.ignorecache "
    "meta.description exporter.multiple"
)

log = logging.getLogger(__name__)


class BuildKit:
    """The two services for one engine. Owned by the event loop's thread."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._jobs = Jobs()
        self._methods = self._served()

    async def serve(self, connection: RawConnection) -> None:
        """Answer calls until the client leaves."""
        await server.serve(connection, self._methods)

    def _served(self) -> Mapping[str, Handler]:
        unary, streaming = server.unary, server.streaming
        read, stat = pb.ReadFileRequest, pb.StatFileRequest
        session = Handler(self._session, Cardinality.STREAM_STREAM, pb.BytesMessage, pb.BytesMessage)
        return {
            "/grpc.health.v1.Health/Check": unary(_health, pb.Empty, pb.HealthCheckResponse),
            _CONTROL + "Info": unary(_info, pb.Empty, pb.InfoResponse),
            _CONTROL + "ListWorkers": unary(
                self._list_workers, pb.ListWorkersRequest, pb.ListWorkersResponse
            ),
            _CONTROL + "DiskUsage": unary(self._disk_usage, pb.DiskUsageRequest, pb.DiskUsageResponse),
            _CONTROL + "Prune": streaming(self._prune, pb.PruneRequest, pb.UsageRecord),
            _CONTROL + "Solve": unary(self._solve, pb.SolveRequest, pb.SolveResponse),
            _CONTROL + "Status": streaming(self._status, pb.StatusRequest, pb.StatusResponse),
            _CONTROL + "Session": session,
            _CONTROL + "ListenBuildHistory": streaming(_no_history, pb.BuildHistoryRequest, pb.Empty),
            _CONTROL + "UpdateBuildHistory": unary(_no_record, pb.Empty, pb.Empty),
            _BRIDGE + "Ping": unary(self._ping, pb.Empty, pb.PongResponse),
            _BRIDGE + "Solve": unary(self._bridge_solve, pb.BridgeSolveRequest, pb.BridgeSolveResponse),
            _BRIDGE + "Return": unary(self._return, pb.ReturnRequest, pb.Empty),
            _BRIDGE + "Evaluate": unary(self._evaluate, pb.EvaluateRequest, pb.Empty),
            _BRIDGE + "ReadFile": unary(self._read_file, read, pb.ReadFileResponse),
            _BRIDGE + "StatFile": unary(self._stat_file, stat, pb.StatFileResponse),
        }

    # Control

    async def _list_workers(self, _: pb.ListWorkersRequest, __: object) -> pb.ListWorkersResponse:
        return pb.ListWorkersResponse(record=[self._worker()])

    async def _solve(self, request: pb.SolveRequest, _: object) -> pb.SolveResponse:
        """Raises InvalidParameter for what the engine's builder cannot do, EngineError for what fails."""
        outputs = [Output(each.Type, dict(each.Attrs)) for each in request.Exporters]
        if not outputs and request.ExporterDeprecated:
            outputs = [Output(request.ExporterDeprecated, dict(request.ExporterAttrsDeprecated))]
        check_outputs(outputs)
        _check_request(request)
        with self._jobs.running(request) as job:
            if request.Frontend:
                image = await self._run_frontend(job, request.Frontend, request.FrontendAttrs)
            else:
                image = await job.returned
            told: dict[str, str] = {}
            if image:
                told = await export(self._engine, image, outputs, job.session, job.progress)
            return pb.SolveResponse(ExporterResponse=told)

    async def _status(self, request: pb.StatusRequest, stream: Stream[Any, pb.StatusResponse]) -> None:
        job = await self._jobs.find(request.Ref)
        async for message in job.progress.follow():
            await stream.send_message(message)

    async def _session(self, stream: Stream[pb.BytesMessage, pb.BytesMessage]) -> None:
        """A client's session, tunnelled through this call."""
        expose = "x-docker-expose-session-"
        told = _metadata(stream)
        methods = told.get(f"{expose}grpc-method", [])
        id, key = told.get(f"{expose}uuid", [""]), told.get(f"{expose}sharedkey", [""])
        session = Session(id[0], key[0], methods)
        try:
            self._engine.sessions.check(session.id)
            await stream.send_initial_metadata()
            await self._engine.sessions.serve(session, server.Tunnel(stream))
        except EngineError as exc:
            raise server.grpc_error(exc) from exc

    async def _disk_usage(self, _: pb.DiskUsageRequest, __: object) -> pb.DiskUsageResponse:
        found = await asyncio.to_thread(build_cache, self._engine)
        return pb.DiskUsageResponse(record=[_usage(each) for each in found])

    async def _prune(self, request: pb.PruneRequest, stream: Stream[Any, pb.UsageRecord]) -> None:
        before = {each.ID: each for each in await asyncio.to_thread(build_cache, self._engine)}
        filters: dict[str, list[str]] = {}
        if request.keepDuration > 0:
            filters["until"] = [f"{request.keepDuration // 10**9}s"]
        for each in request.filter:
            for part in filter(None, each.split(",")):
                name, operator, value = part.partition("~=" if "~=" in part else "==")
                filters[name.strip().lower()] = [value.strip()] if operator else []
        limits = PruneLimits(request.reservedSpace, request.maxUsedSpace, request.minFreeSpace)
        report = await build_prune(self._engine, filters, limits)
        for id in report.CachesDeleted or []:
            if id in before:
                await stream.send_message(_usage(before[id]))

    # LLBBridge

    async def _ping(self, _: pb.Empty, stream: Stream[Any, Any]) -> pb.PongResponse:
        await self._job_of(stream)
        return pb.PongResponse(
            FrontendAPICaps=[pb.APICap(ID=id, Enabled=True) for id in _FRONTEND_CAPS.split()],
            LLBCaps=[pb.APICap(ID=id, Enabled=True) for id in _LLB_CAPS.split()],
            Workers=[self._worker()],
        )

    async def _bridge_solve(
        self, request: pb.BridgeSolveRequest, stream: Stream[Any, Any]
    ) -> pb.BridgeSolveResponse:
        job = await self._job_of(stream)
        if job.ended:
            raise NotFound("the solve has ended")
        if request.definition.operations or request.FrontendInputs:
            raise GRPCError(Status.UNIMPLEMENTED, _NO_LLB)
        id = ""
        metadata: dict[str, bytes] = {}
        if request.Frontend:
            image = await job.part(self._run_frontend(job, request.Frontend, request.FrontendOpt))
            id = secrets.token_hex(13)
            job.images[id] = image
            metadata["containerimage.config"] = self._config(image)
        result = pb.Result(metadata=metadata)
        if request.allowResultArrayRef:
            result.ref.id = id
        else:
            result.refDeprecated = id
        reply = pb.BridgeSolveResponse(result=result)
        if not request.allowResultReturn:
            reply.ref = id
        return reply

    async def _return(self, request: pb.ReturnRequest, stream: Stream[Any, Any]) -> pb.Empty:
        job = await self._job_of(stream)
        if job.returned.done():
            return pb.Empty()
        if request.HasField("error") and request.error.code:
            error = request.error
            job.returned.set_exception(_status_error(error.code, error.message, list(error.details)))
            return pb.Empty()
        result = request.result
        ids = [result.ref.id or result.refDeprecated, *(ref.id for ref in result.refs.refs.values())]
        found = [job.images[id] for id in ids if id in job.images]
        if len(found) > 1:
            raise InvalidParameter("more than one result is not supported")
        job.returned.set_result(found[0] if found else "")
        return pb.Empty()

    async def _evaluate(self, request: pb.EvaluateRequest, stream: Stream[Any, Any]) -> pb.Empty:
        self._image(await self._job_of(stream), request.Ref)
        return pb.Empty()  # It was done when it was solved.

    async def _read_file(self, request: pb.ReadFileRequest, stream: Stream[Any, Any]) -> pb.ReadFileResponse:
        from longshore.engine.builder.results import read_file

        image = self._image(await self._job_of(stream), request.Ref)
        content = await asyncio.to_thread(read_file, self._engine, image, request.FilePath)
        start, length = request.Range.Offset, request.Range.Length
        content = content[start : start + length] if length else content[start:]
        return pb.ReadFileResponse(Data=content)

    async def _stat_file(self, request: pb.StatFileRequest, stream: Stream[Any, Any]) -> pb.StatFileResponse:
        from longshore.engine.builder.results import stat_file

        image = self._image(await self._job_of(stream), request.Ref)
        return pb.StatFileResponse(stat=await asyncio.to_thread(stat_file, self._engine, image, request.Path))

    async def _run_frontend(self, job: Job, frontend: str, attributes: Mapping[str, str]) -> str:
        """Raises GRPCError that shows where in the Dockerfile it failed."""
        if frontend != FRONTEND and not _names_the_same(frontend, attributes):
            raise GRPCError(
                Status.UNIMPLEMENTED, f"frontend {frontend} is not supported: {FRONTEND} is built in"
            )
        options = frontend_options(attributes, job.session, job.entitlements)
        try:
            return await solve(self._engine, options, job.progress)
        except SolveFailed as exc:
            place = None
            if exc.line and len(exc.content) <= _LARGEST_SHOWN:
                place = server.Place(exc.filename, exc.content, exc.line)
            raise server.grpc_error(exc, exc.message, place) from exc

    def _image(self, job: Job, ref: str) -> str:
        try:
            return job.images[ref]
        except KeyError:
            raise NotFound(f"no such ref: {ref}") from None

    def _config(self, image: str) -> bytes:
        return msgspec.json.encode(self._engine.images.images.get(image).described)

    async def _job_of(self, stream: Stream[Any, Any]) -> Job:
        id = _metadata(stream).get(_BUILD_ID, [])
        if not id:
            raise InvalidParameter("no buildid found in context")
        return await self._jobs.find(id[0])

    def _worker(self) -> pb.WorkerRecord:
        here = host_platform()
        gateway = next(iter(host_gateways(self._engine.networks)), "")
        return pb.WorkerRecord(
            ID=hashlib.sha256(self._engine.id.encode()).hexdigest()[:25],
            Labels={"org.mobyproject.buildkit.worker.moby.host-gateway-ip": gateway} if gateway else {},
            platforms=[pb.Platform(Architecture=here.architecture, OS=here.os, Variant=here.variant)],
            buildkitVersion=_version(),
        )


_NO_LLB = "graphs of a client's own making (LLB) are not solved here: only Dockerfiles are"


def _metadata(stream: Stream[Any, Any]) -> dict[str, list[str]]:
    """What came with a call, by name."""
    found: dict[str, list[str]] = {}
    if stream.metadata is not None:
        for name, value in stream.metadata.items():
            found.setdefault(name, []).append(str(value))
    return found


def _names_the_same(frontend: str, attributes: Mapping[str, str]) -> bool:
    """Whether an image is asked for that would do what the frontend does which is built in."""
    image = attributes.get("source", "").removeprefix("docker.io/")
    return frontend == "gateway.v0" and image.startswith(
        ("docker/dockerfile:", "docker/dockerfile-upstream:")
    )


def _check_request(request: pb.SolveRequest) -> None:
    if request.definition.operations:
        raise GRPCError(Status.UNIMPLEMENTED, _NO_LLB)
    for each in request.Cache.Exports:
        if each.Type != "inline":  # Any image is a cache to --cache-from.
            raise InvalidParameter(f"cache export is not supported: {each.Type}; images are caches")
    for entitlement in request.Entitlements:
        if entitlement != NETWORK_HOST:
            raise InvalidParameter(f"{entitlement} is not allowed")


def _status_error(code: int, message: str, details: list[Any]) -> GRPCError:
    try:
        status = Status(code)
    except ValueError:
        status = Status.UNKNOWN
    return GRPCError(status, message, details or None)


async def _health(_: pb.Empty, __: object) -> pb.HealthCheckResponse:
    return pb.HealthCheckResponse(status=1)


async def _no_history(request: pb.BuildHistoryRequest, stream: Stream[Any, Any]) -> None:
    """Builds are not recorded: there are none to tell of, neither now nor while somebody listens."""
    await stream.send_initial_metadata()
    if not request.EarlyExit:
        await asyncio.Event().wait()


async def _no_record(_: pb.Empty, __: object) -> pb.Empty:
    raise NotFound("builds are not recorded: there is no record of that reference")


async def _info(_: pb.Empty, __: object) -> pb.InfoResponse:
    return pb.InfoResponse(buildkitVersion=_version())


def _version() -> pb.BuildkitVersion:
    return pb.BuildkitVersion(package="longshore", version=f"v{__version__}")


def _usage(record: BuildCacheRecord) -> pb.UsageRecord:
    usage = pb.UsageRecord(
        ID=record.ID,
        Mutable=True,
        InUse=record.InUse,
        Size=record.Size,
        UsageCount=record.UsageCount,
        Description=record.Description,
        RecordType=record.Type,
        Shared=record.Shared,
    )
    for field, text in (("CreatedAt", record.CreatedAt), ("LastUsedAt", record.LastUsedAt)):
        if text:
            getattr(usage, field).FromNanoseconds(parse_rfc3339(text))
    return usage
