"""POST /containers/create: what is refused, with which words, and what an inspect says afterwards."""

from __future__ import annotations

from typing import Any

from differential.compare import LOWERCASE, Case, case, request

IMAGE = {"Image": "busybox"}


def refused(name: str, body: Any = None, query: str = "", **options: Any) -> Case:
    """A create that fails, or only warns."""
    full = IMAGE | body if isinstance(body, dict) else body
    return case(f"create: {name}", f"POST /containers/create{query}", full, **options)


def host(name: str, config: dict[str, Any], **options: Any) -> Case:
    """A create with this HostConfig."""
    return refused(name, {"HostConfig": config}, **options)


def kept(name: str, **body: Any) -> Case:
    """A create whose settings an inspect must give back the same."""
    return case(
        f"create: keeps {name}",
        "GET /containers/kept/json",
        given=(request("POST /containers/create?name=kept", {**IMAGE, "Cmd": ["true"], **body}),),
        same=(
            "Config." + "Cmd",
            *(f"Config.{key}" for key in body if key != "HostConfig"),
            *(f"HostConfig.{key}" for key in body.get("HostConfig", {})),
            "State.Status",
            "Path",
            "Args",
            "RestartCount",
        ),
    )


PORT = 'invalid port specification: "{}"'
CREATED = request("POST /containers/create?name=taken", IMAGE | {"Cmd": ["true"]})
MOUNT = {"Type": "bind", "Source": "/etc", "Target": "/x"}

CASES: list[Case] = [
    refused("plain", {"Cmd": ["true"]}),
    refused("missing image", {"Image": "nope"}),
    refused("missing image with a tag", {"Image": "nope:1"}),
    refused("missing image by digest", {"Image": f"nope@sha256:{'a' * 64}"}),
    refused("image name that is none", {"Image": "Nope!"}, newer=LOWERCASE.format("Nope!")),
    refused("image name in capitals", {"Image": "NOPE"}, newer=LOWERCASE.format("NOPE")),
    refused("empty image", {"Image": ""}),
    refused("no image but a command", {"Image": "", "Cmd": ["true"]}, sooner="no image specified"),
    refused("empty body", b"", headers={"Content-Type": "application/json"}, status_only=True),
    refused("no content type", b'{"Image":"busybox"}', status_only=True),
    refused("wrong content type", b"{}", headers={"Content-Type": "text/plain"}, status_only=True),
    refused("broken JSON", b"{", headers={"Content-Type": "application/json"}, status_only=True),
    refused(
        "JSON of a wrong type", b'{"Image":1}', headers={"Content-Type": "application/json"}, status_only=True
    ),
    refused("null", b"null", headers={"Content-Type": "application/json"}, status_only=True),
    refused("name that is none", {}, query="?name=a/b"),
    refused("name of one letter", {}, query="?name=a"),
    refused("name with a leading dash", {}, query="?name=-ab"),
    refused("name that is taken", {}, query="?name=taken", given=(CREATED,)),
    refused("working directory that is relative", {"WorkingDir": "x"}),
    refused("environment without a name", {"Env": ["=x"]}),
    refused("stop signal that is none", {"StopSignal": "NOPE"}),
    refused("exposed port that is none", {"ExposedPorts": {"x/tcp": {}}}, sooner=PORT.format("x")),
    refused(
        "exposed port of an unknown protocol",
        {"ExposedPorts": {"80/nope": {}}},
        sooner=PORT.format("80/nope"),
    ),
    refused("health check that is too quick", {"Healthcheck": {"Test": ["CMD", "true"], "Interval": 1}}),
    refused("health check that times out at once", {"Healthcheck": {"Test": ["CMD", "true"], "Timeout": 1}}),
    refused("health check with negative retries", {"Healthcheck": {"Test": ["CMD", "true"], "Retries": -1}}),
    refused("health check with a short start", {"Healthcheck": {"Test": ["CMD", "true"], "StartPeriod": 1}}),
    refused("hostname that is long", {"Hostname": "a" * 300}, status_only=True),
    host("memory that is too small", {"Memory": 1000}),
    host("swap below memory", {"Memory": 1 << 24, "MemorySwap": 1 << 23}),
    host("swap without memory", {"MemorySwap": 1 << 24}),
    host("reservation above memory", {"Memory": 1 << 24, "MemoryReservation": 1 << 25}),
    host("reservation that is too small", {"MemoryReservation": 1000}),
    host("swappiness out of range", {"MemorySwappiness": 101}),
    host("too many CPUs", {"NanoCpus": 10**15}),
    host("negative CPUs", {"NanoCpus": -1}),
    host("CPUs and a period", {"NanoCpus": 10**9, "CpuPeriod": 100000}),
    host("CPUs and a quota", {"NanoCpus": 10**9, "CpuQuota": 100000}),
    host("period out of range", {"CpuPeriod": 10}),
    host("quota that is too small", {"CpuQuota": 10}),
    host("CPU set that is none", {"CpusetCpus": "x"}),
    host("CPU set that is not there", {"CpusetCpus": "4000"}, status_only=True),
    host("memory nodes that are not there", {"CpusetMems": "4000"}, status_only=True),
    host("block weight out of range", {"BlkioWeight": 5}),
    host(
        "restart policy that is none",
        {"RestartPolicy": {"Name": "nope"}},
        newer=(
            "invalid restart policy: unknown policy 'nope'; use one of 'no', 'always', 'on-failure', or "
            "'unless-stopped'"
        ),
    ),
    host(
        "retries with always",
        {"RestartPolicy": {"Name": "always", "MaximumRetryCount": 1}},
        newer=("invalid restart policy: maximum retry count can only be used with 'on-failure'"),
    ),
    host(
        "negative retries",
        {"RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": -1}},
        newer=("invalid restart policy: maximum retry count cannot be negative"),
    ),
    host("restart and remove", {"RestartPolicy": {"Name": "always"}, "AutoRemove": True}),
    host("bind without a target", {"Binds": ["/etc"]}, status_only=True),
    host("bind to a relative target", {"Binds": ["/etc:x"]}),
    host("bind to the root", {"Binds": ["/etc:/"]}),
    host("bind with an unknown mode", {"Binds": ["/etc:/x:nope"]}),
    host("bind with too many parts", {"Binds": ["/etc:/x:ro:z:a:b"]}),
    host("bind with both modes", {"Binds": ["/etc:/x:ro,rw"]}),
    host("two binds on one target", {"Binds": ["/etc:/x", "/var:/x"]}),
    host("bind of a volume with a bad name", {"Binds": ["a!b:/x"]}),
    host("mount without a target", {"Mounts": [MOUNT | {"Target": ""}]}),
    host("mount of an unknown type", {"Mounts": [MOUNT | {"Type": "nope"}]}),
    host("mount from nowhere", {"Mounts": [MOUNT | {"Source": "/nope/nope"}]}),
    host("mount from a relative path", {"Mounts": [MOUNT | {"Source": "x"}]}),
    host("bind mount without a source", {"Mounts": [MOUNT | {"Source": ""}]}),
    host(
        "bind mount with tmpfs options",
        {"Mounts": [MOUNT | {"TmpfsOptions": {"SizeBytes": 1}}]},
    ),
    host(
        "volume mount with bind options",
        {"Mounts": [{"Type": "volume", "Target": "/x", "BindOptions": {"Propagation": "shared"}}]},
    ),
    host("tmpfs mount with a source", {"Mounts": [{"Type": "tmpfs", "Source": "/x", "Target": "/x"}]}),
    host("anonymous volume, read only", {"Mounts": [{"Type": "volume", "Target": "/x", "ReadOnly": True}]}),
    host("tmpfs on a relative path", {"Tmpfs": {"x": ""}}, status_only=True),
    host("tmpfs with unknown options", {"Tmpfs": {"/x": "nope"}}, sooner='invalid tmpfs option "nope"'),
    host(
        "propagation that is none",
        {"Mounts": [MOUNT | {"BindOptions": {"Propagation": "nope"}}]},
        status_only=True,
    ),
    host("volumes from a missing container", {"VolumesFrom": ["nope"]}),
    host("volumes from with an unknown mode", {"VolumesFrom": ["taken:nope"]}, given=(CREATED,)),
    host("link to a missing container", {"Links": ["nope:x"]}),
    host("network of a missing container", {"NetworkMode": "container:nope"}, status_only=True),
    host("network of no container", {"NetworkMode": "container:"}),
    host("host network and a link", {"NetworkMode": "host", "Links": ["taken:x"]}, given=(CREATED,)),
    host(
        "container network and DNS", {"NetworkMode": "container:taken", "Dns": ["1.1.1.1"]}, given=(CREATED,)
    ),
    host(
        "container network and hosts",
        {"NetworkMode": "container:taken", "ExtraHosts": ["a:1.1.1.1"]},
        given=(CREATED,),
    ),
    host(
        "container network and ports",
        {"NetworkMode": "container:taken", "PublishAllPorts": True},
        given=(CREATED,),
    ),
    host("extra host that is none", {"ExtraHosts": ["nope"]}),
    host("extra host with a bad address", {"ExtraHosts": ["a:nope"]}),
    host("DNS server that is no address", {"Dns": ["nope"]}, sooner="invalid nameserver address: nope"),
    host("port binding that is none", {"PortBindings": {"80/tcp": [{"HostPort": "x"}]}}),
    host("port binding out of range", {"PortBindings": {"80/tcp": [{"HostPort": "70000"}]}}),
    host(
        "port binding of an unknown protocol",
        {"PortBindings": {"80/nope": [{"HostPort": "80"}]}},
        sooner=PORT.format("80/nope"),
    ),
    host("port that is none", {"PortBindings": {"x/tcp": [{"HostPort": "80"}]}}),
    host("IPC mode that is none", {"IpcMode": "nope"}, sooner="invalid IPC mode: nope"),
    host("IPC of a missing container", {"IpcMode": "container:nope"}, status_only=True),
    host("PID mode that is none", {"PidMode": "nope"}, sooner="invalid PID mode: nope"),
    host("UTS mode that is none", {"UTSMode": "nope"}, sooner="invalid UTS mode: nope"),
    host(
        "user namespace mode that is none",
        {"UsernsMode": "nope"},
        sooner="invalid user namespace mode: nope",
    ),
    host("cgroup namespace mode that is none", {"CgroupnsMode": "nope"}),
    host("log driver that is none", {"LogConfig": {"Type": "nope"}}),
    host("log option that is none", {"LogConfig": {"Type": "json-file", "Config": {"nope": "1"}}}),
    host(
        "log size that is none",
        {"LogConfig": {"Type": "json-file", "Config": {"max-size": "x"}}},
        status_only=True,
    ),
    host("log mode that is none", {"LogConfig": {"Type": "json-file", "Config": {"mode": "x"}}}),
    host("runtime that is none", {"Runtime": "nope"}, status_only=True),
    host("isolation that is none", {"Isolation": "nope"}, newer="invalid isolation 'nope' on linux"),
    host("capability that is none", {"CapAdd": ["NOPE"]}, status_only=True),
    host("security option that is none", {"SecurityOpt": ["nope"]}, status_only=True),
    host(
        "device that is not there",
        {
            "Devices": [
                {"PathOnHost": "/dev/nope", "PathInContainer": "/dev/nope", "CgroupPermissions": "rwm"}
            ]
        },
    ),
    host(
        "device permissions that are none",
        {"Devices": [{"PathOnHost": "/dev/null", "PathInContainer": "/dev/x", "CgroupPermissions": "nope"}]},
        status_only=True,
    ),
    host("negative shm size", {"ShmSize": -1}),
    host("OOM score out of range", {"OomScoreAdj": 2000}),
    host(
        "sysctl that is not namespaced",
        {"Sysctls": {"kernel.nope": "1"}},
        sooner='sysctl "kernel.nope" is not in a separate kernel namespace',
    ),
    host(
        "sysctl of the host's network",
        {"NetworkMode": "host", "Sysctls": {"net.ipv4.ip_forward": "1"}},
        sooner='sysctl "net.ipv4.ip_forward" not allowed in host network namespace',
    ),
    host(
        "ulimit with soft above hard",
        {"Ulimits": [{"Name": "nofile", "Soft": 2, "Hard": 1}]},
        status_only=True,
    ),
    host("ulimit that is none", {"Ulimits": [{"Name": "nope", "Soft": 1, "Hard": 1}]}, status_only=True),
    host("storage option", {"StorageOpt": {"nope": "1"}}, status_only=True),
    host("cgroup parent", {"CgroupParent": "/nope"}, status_only=True),
    refused(
        "endpoint on a missing network",
        {"HostConfig": {"NetworkMode": "nope"}, "NetworkingConfig": {"EndpointsConfig": {"nope": {}}}},
        status_only=True,
    ),
    refused(
        "endpoint with a bad address",
        {"NetworkingConfig": {"EndpointsConfig": {"bridge": {"IPAMConfig": {"IPv4Address": "nope"}}}}},
        status_only=True,
    ),
    kept("a plain container"),
    kept("environment, labels and user", Env=["A=1", "B"], Labels={"a": "1"}, User="1000:1000"),
    kept("an entry point and a command", Entrypoint=["echo"], Cmd=["a", "b"]),
    kept("a hostname and a domain", Hostname="web", Domainname="example.com"),
    kept("a working directory", WorkingDir="/tmp"),
    kept("a terminal and stdin", Tty=True, OpenStdin=True, StdinOnce=True, AttachStdin=True),
    kept("a stop signal", StopSignal="SIGUSR1", StopTimeout=3),
    kept("a health check", Healthcheck={"Test": ["CMD", "true"], "Interval": 1_000_000_000}),
    kept("exposed ports", ExposedPorts={"80/tcp": {}, "53/udp": {}}),
    kept("volumes", Volumes={"/data": {}}),
    kept("limits", HostConfig={"Memory": 1 << 26, "NanoCpus": 500_000_000, "CpuShares": 512}),
    kept("swap and pids", HostConfig={"Memory": 1 << 26, "MemorySwap": 1 << 27, "PidsLimit": 99}),
    kept("port bindings", HostConfig={"PortBindings": {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": ""}]}}),
    # One each: dockerd lists several in no order.
    kept("a bind", HostConfig={"Binds": ["/etc:/x:ro"]}),
    kept("a named volume", HostConfig={"Binds": ["named:/y"]}),
    kept("mounts", HostConfig={"Mounts": [{"Type": "tmpfs", "Target": "/t"}]}),
    kept("tmpfs", HostConfig={"Tmpfs": {"/t": "size=1m"}}),
    kept("a restart policy", HostConfig={"RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 3}}),
    kept("capabilities", HostConfig={"CapAdd": ["CAP_NET_ADMIN"], "CapDrop": ["CAP_CHOWN"]}),
    kept("privileges", HostConfig={"Privileged": True, "SecurityOpt": None}),
    kept("a read-only root", HostConfig={"ReadonlyRootfs": True, "ShmSize": 1 << 20}),
    kept("hosts and DNS", HostConfig={"ExtraHosts": ["a:1.1.1.1"], "Dns": ["1.1.1.1"], "DnsSearch": ["x"]}),
    kept("namespaces", HostConfig={"PidMode": "host", "UTSMode": "host", "IpcMode": "host"}),
    kept("no network", HostConfig={"NetworkMode": "none"}),
    kept("the host's network", HostConfig={"NetworkMode": "host"}),
    kept("a log driver", HostConfig={"LogConfig": {"Type": "json-file", "Config": {"max-size": "1m"}}}),
    kept("ulimits", HostConfig={"Ulimits": [{"Name": "nofile", "Soft": 10, "Hard": 20}]}),
    kept("sysctls", HostConfig={"Sysctls": {"net.ipv4.ip_forward": "0"}}),
    kept("an init", HostConfig={"Init": True}),
    kept("nothing but an image"),
    kept("empty lists", Env=[], HostConfig={"Binds": [], "Dns": [], "CapAdd": [], "ExtraHosts": []}),
    kept("nulls", Env=None, HostConfig={"Binds": None, "Dns": None, "CapAdd": None, "ExtraHosts": None}),
    kept("empty maps", Labels={}, HostConfig={"PortBindings": {}, "Sysctls": {}}),
    kept("every port", HostConfig={"PublishAllPorts": True}),
    kept("no OOM killer", HostConfig={"OomKillDisable": True, "Memory": 1 << 26}),
    kept("an OOM score", HostConfig={"OomScoreAdj": 100}),
    kept("groups", HostConfig={"GroupAdd": ["100"]}),
    kept("an IPC of its own", HostConfig={"IpcMode": "private"}),
    kept("masked paths", HostConfig={"MaskedPaths": ["/proc/kcore"], "ReadonlyPaths": []}),
    kept("block weights", HostConfig={"BlkioWeight": 0, "BlkioDeviceReadBps": []}),
    kept("device rules", HostConfig={"DeviceCgroupRules": ["c 1:3 mr"]}),
    kept("CPU sets", HostConfig={"CpusetCpus": "0", "CpuPeriod": 100000, "CpuQuota": 50000}),
    kept("DNS options", HostConfig={"DnsOptions": ["ndots:1"]}),
    kept("a shell", Shell=["/bin/sh", "-c"]),
    kept("an empty entry point", Entrypoint=[]),
    kept("a mount with options", HostConfig={"Mounts": [MOUNT | {"ReadOnly": True}]}),
    kept(
        "a volume mount",
        HostConfig={"Mounts": [{"Type": "volume", "Source": "v1", "Target": "/v", "VolumeOptions": {}}]},
    ),
    kept(
        "devices",
        HostConfig={
            "Devices": [{"PathOnHost": "/dev/null", "PathInContainer": "/dev/x", "CgroupPermissions": "rwm"}]
        },
    ),
]
