"""Namespaces, users, capabilities, seccomp and cgroups of containers, as a process in them finds them."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import pytest
from harness import Busybox, DockerCLI, Layer, Longshored, daemon_message, docker_archive

Arguments = list[str]


def sh(docker: DockerCLI, *options: str, script: str) -> str:
    return docker.out("run", "--rm", *options, "busybox", "sh", "-c", script)


def refused(docker: DockerCLI, *arguments: str) -> str:
    done = docker("run", "--rm", *arguments, check=False)
    assert done.returncode == 125, done
    return daemon_message(done)


def namespace(kind: str) -> str:
    return str(Path(f"/proc/self/ns/{kind}").readlink())


@pytest.mark.parametrize("kind", ["pid", "ipc", "uts", "mnt", "net", "cgroup"])
def test_namespaces_are_the_containers_own(docker: DockerCLI, kind: str) -> None:
    options = ("--cgroupns", "private") if kind == "cgroup" else ()
    assert sh(docker, *options, script=f"readlink /proc/self/ns/{kind}") != namespace(kind)


@pytest.mark.parametrize(
    ("kind", "option"),
    [
        ("pid", "--pid=host"),
        ("ipc", "--ipc=host"),
        ("uts", "--uts=host"),
        ("net", "--net=host"),
        ("cgroup", "--cgroupns=host"),
    ],
)
@pytest.mark.proves(
    "HostConfig.PidMode",
    "HostConfig.IpcMode",
    "HostConfig.UTSMode",
    "HostConfig.NetworkMode",
    "HostConfig.CgroupnsMode",
)
def test_namespaces_of_the_machine(docker: DockerCLI, kind: str, option: str) -> None:
    assert sh(docker, option, script=f"readlink /proc/self/ns/{kind}") == namespace(kind)


@pytest.mark.parametrize(("kind", "option"), [("pid", "--pid"), ("ipc", "--ipc"), ("net", "--network")])
@pytest.mark.proves("HostConfig.PidMode", "HostConfig.IpcMode", "HostConfig.NetworkMode")
def test_namespaces_of_another_container(docker: DockerCLI, kind: str, option: str) -> None:
    docker("run", "-d", "--name", "donor", "--ipc", "shareable", "busybox", "sleep", "600")
    pid = docker.out("inspect", "-f", "{{.State.Pid}}", "donor")
    wanted = str(Path(f"/proc/{pid}/ns/{kind}").readlink())
    assert sh(docker, f"{option}=container:donor", script=f"readlink /proc/self/ns/{kind}") == wanted


@pytest.mark.proves("HostConfig.IpcMode", "HostConfig.ShmSize")
def test_shareable_memory_is_shared(docker: DockerCLI) -> None:
    docker("run", "-d", "--name", "donor", "--ipc", "shareable", "--shm-size", "8m", "busybox", "sh", "-c",
           "echo shared > /dev/shm/note; sleep 600")  # fmt: skip
    assert sh(docker, "--ipc=container:donor", script="cat /dev/shm/note") == "shared"
    assert "size=8192k" in sh(docker, "--ipc=container:donor", script="grep /dev/shm /proc/mounts")
    docker("run", "-d", "--name", "closed", "--ipc", "private", "busybox", "sleep", "600")
    id = docker.out("inspect", "-f", "{{.Id}}", "closed")
    message = f"container {id}: non-shareable IPC (hint: use IpcMode:shareable for the donor container)"
    assert refused(docker, "--ipc=container:closed", "busybox", "true") == message


def test_ipc_none_has_no_shared_memory(docker: DockerCLI) -> None:
    assert sh(docker, "--ipc=none", script="ls -d /dev/shm 2>/dev/null; echo over") == "over"


@pytest.mark.parametrize("mode", ["--pid", "--ipc"])
def test_joining_what_does_not_run(docker: DockerCLI, mode: str) -> None:
    id = docker.out("create", "--name", "donor", "busybox", "true")
    assert refused(docker, f"{mode}=container:donor", "busybox", "true") == f"container {id} is not running"
    assert refused(docker, f"{mode}=container:nosuch", "busybox") == "No such container: nosuch"


def test_whose_namespaces_are_joined_is_kept_by_id(docker: DockerCLI) -> None:
    id = docker.out("run", "-d", "--name", "donor", "--ipc", "shareable", "busybox", "sleep", "600")
    joining = [f"--{kind}=container:donor" for kind in ("pid", "ipc", "network")]
    docker("create", "--name", "joiner", *joining, "busybox", "true")
    modes = "{{.HostConfig.PidMode}} {{.HostConfig.IpcMode}} {{.HostConfig.NetworkMode}}"
    assert docker.out("inspect", "-f", modes, "joiner").split() == [f"container:{id}"] * 3
    docker("rename", "donor", "renamed")
    assert docker("start", "-a", "joiner").returncode == 0


def test_names_of_the_host(docker: DockerCLI) -> None:
    script = "hostname; cat /etc/hostname; cat /proc/sys/kernel/domainname"
    named = sh(docker, "--hostname", "box", "--domainname", "example.org", script=script)
    assert named.split("\n")[:2] == ["box", "box"]
    assert sh(docker, "--net=host", "--uts=host", script="hostname") == socket.gethostname()
    message = "conflicting options: hostname and the UTS mode"
    assert refused(docker, "--uts=host", "--hostname", "x", "busybox") == message


def capabilities(docker: DockerCLI, *options: str) -> int:
    return int(sh(docker, *options, script="grep CapEff /proc/self/status").split()[1], 16)


@pytest.mark.proves("HostConfig.CapAdd", "HostConfig.CapDrop", "HostConfig.Privileged")
def test_capabilities(docker: DockerCLI) -> None:
    assert capabilities(docker) == 0x00000000A80425FB
    assert capabilities(docker, "--cap-drop", "ALL") == 0
    assert capabilities(docker, "--cap-drop", "all", "--cap-add", "net_admin") == 1 << 12
    assert capabilities(docker, "--cap-drop", "CAP_CHOWN") == 0x00000000A80425FA
    assert capabilities(docker, "-u", "1000") == 0
    own = int(Path("/proc/self/status").read_text().split("CapBnd:")[1].split()[0], 16)
    assert capabilities(docker, "--privileged") == own
    assert refused(docker, "--cap-add", "CAP_NOSUCH", "busybox") == 'invalid capability: "CAP_NOSUCH"'


@pytest.mark.proves("HostConfig.SecurityOpt", "HostConfig.Privileged")
def test_seccomp_is_on_unless_told_otherwise(docker: DockerCLI) -> None:
    script = "grep '^Seccomp:' /proc/self/status; unshare -U true 2>/dev/null && echo unshared"
    assert sh(docker, script=f"{script}; true").split() == ["Seccomp:", "2"]
    for options in (["--security-opt", "seccomp=unconfined"], ["--privileged"]):
        assert sh(docker, *options, script=script).split() == ["Seccomp:", "0", "unshared"]
    assert sh(docker, "--cap-add", "SYS_ADMIN", script=script).split() == ["Seccomp:", "2", "unshared"]


def test_mounting_needs_the_capability(docker: DockerCLI) -> None:
    script = "mount -t tmpfs x /tmp 2>/dev/null && echo mounted; true"
    assert sh(docker, script=script) == ""
    assert sh(docker, "--privileged", script=script) == "mounted"


@pytest.mark.proves("HostConfig.SecurityOpt")
def test_a_seccomp_profile_of_ones_own(docker: DockerCLI, tmp_path: Path) -> None:
    profile = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}],
    }
    (tmp_path / "profile.json").write_text(json.dumps(profile))
    script = "mkdir /made 2>/dev/null || echo refused"
    assert sh(docker, "--security-opt", f"seccomp={tmp_path}/profile.json", script=script) == "refused"


@pytest.mark.proves("HostConfig.SecurityOpt")
def test_no_new_privileges(docker: DockerCLI) -> None:
    script = "grep NoNewPrivs /proc/self/status"
    assert sh(docker, script=script).split()[1] == "0"
    assert sh(docker, "--security-opt", "no-new-privileges", script=script).split()[1] == "1"
    message = 'invalid --security-opt 2: "foo=bar"'
    assert refused(docker, "--security-opt", "foo=bar", "busybox") == message


def test_masked_and_read_only_paths(docker: DockerCLI) -> None:
    script = "ls /proc/acpi /sys/firmware; cat /proc/timer_list; echo x > /proc/sys/kernel/panic || echo ro"
    assert sh(docker, script=f"({script}) 2>/dev/null").split() == ["/proc/acpi:", "/sys/firmware:", "ro"]
    opened = sh(docker, "--security-opt", "systempaths=unconfined", script="ls /sys/firmware | wc -l")
    assert int(opened) == len(list(Path("/sys/firmware").iterdir()))


@pytest.mark.proves("HostConfig.ReadonlyRootfs", "HostConfig.Tmpfs")
def test_a_read_only_root(docker: DockerCLI) -> None:
    script = "touch /x || touch /etc/hosts || touch /dev/shm/x && echo shm; touch /t/x && echo tmpfs"
    wanted = ["shm", "tmpfs"]
    assert sh(docker, "--read-only", "--tmpfs", "/t", script=f"({script}) 2>/dev/null").split() == wanted


@pytest.mark.proves("HostConfig.Sysctls")
def test_sysctls(docker: DockerCLI) -> None:
    script = "cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/msgmax"
    options = ("--sysctl", "net.ipv4.ip_forward=0", "--sysctl", "kernel.msgmax=4096")
    assert sh(docker, *options, script=script).split() == ["0", "4096"]


@pytest.mark.proves(
    "HostConfig.Ulimits.Name", "HostConfig.Ulimits.Soft", "HostConfig.Ulimits.Hard", "HostConfig.OomScoreAdj"
)
def test_limits_and_scores(docker: DockerCLI) -> None:
    script = "ulimit -n; ulimit -Hn; cat /proc/self/oom_score_adj"
    options = ("--ulimit", "nofile=100:200", "--oom-score-adj", "500")
    assert sh(docker, *options, script=script).split() == ["100", "200", "500"]
    message = "Invalid value 5000, range for oom score adj is [-1000, 1000]"
    assert refused(docker, "--oom-score-adj", "5000", "busybox") == message


def test_devices(docker: DockerCLI) -> None:
    script = "stat -c %t:%T /dev/mine; cat /dev/mine | wc -c"
    assert sh(docker, "--device", "/dev/null:/dev/mine", script=script).split() == ["1:3", "0"]
    assert int(sh(docker, "--privileged", script="ls /dev | wc -l")) > int(
        sh(docker, script="ls /dev | wc -l")
    )


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ([], "uid=0(root) gid=0(root) groups=0(root)"),
        (["-u", "user"], "uid=1000(user) gid=1000(user) groups=10(wheel),1000(user)"),
        (["-u", "user:wheel"], "uid=1000(user) gid=10(wheel) groups=10(wheel)"),
        (["-u", "1000:77"], "uid=1000(user) gid=77 groups=77"),
        (["-u", "12345"], "uid=12345 gid=0(root) groups=0(root)"),
        (["-u", "12345:12345"], "uid=12345 gid=12345 groups=12345"),
        (
            ["-u", "1000:10", "--group-add", "wheel", "--group-add", "77"],
            "uid=1000(user) gid=10(wheel) groups=10(wheel),77",
        ),
    ],
)
@pytest.mark.proves("ContainerConfig.User", "HostConfig.GroupAdd")
def test_users_and_groups(docker: DockerCLI, options: Arguments, wanted: str) -> None:
    assert sh(docker, *options, script="id") == wanted


def test_users_have_their_home(docker: DockerCLI) -> None:
    assert sh(docker, "-u", "user", script="echo $HOME") == "/home"
    assert sh(docker, "-u", "4242", script="echo $HOME") == "/"


@pytest.mark.proves("ContainerConfig.WorkingDir")
def test_a_missing_working_directory_is_made(docker: DockerCLI) -> None:
    script = "pwd; stat -c '%u:%g %a' /new /new/deep"
    made = sh(docker, "-u", "user", "-w", "/new/deep/", script=script)
    assert made.split("\n") == ["/new/deep", "0:0 755", "0:0 755"]
    message = "the working directory 'relative' is invalid, it needs to be an absolute path"
    assert refused(docker, "-w", "relative", "busybox") == message
    message = "Cannot mkdir: /etc/passwd is not a directory"
    assert refused(docker, "-w", "/etc/passwd", "busybox") == message
    assert (
        refused(docker, "-w", "/etc/passwd/x", "busybox") == "Cannot mkdir: /etc/passwd/x is not a directory"
    )


def test_a_working_directory_behind_links_stays_inside(
    daemon: Longshored, docker: DockerCLI, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    links = Layer({"real": None, "link": "real", "nowhere": "/gone"})
    evil = Layer({"out": str(outside), "up": "../../../../../../../../" + str(outside)})
    docker_archive(tmp_path / "links.tar", [Busybox.layer(), links, evil], ["links:latest"], {"Cmd": ["pwd"]})
    daemon.load(tmp_path / "links.tar")
    try:
        assert (
            docker.out("run", "--rm", "-w", "/link/made", "links", "ls", "-d", "/real/made") == "/real/made"
        )
        for path in ("/out/made", "/up/made"):
            docker("run", "--rm", "-w", path, "links", check=False)
            assert list(outside.iterdir()) == []
        done = docker("run", "--rm", "-w", "/nowhere", "links", check=False)
        assert "Cannot mkdir: /nowhere is not a directory" in done.stderr
    finally:
        docker("rm", "-f", *docker.out("ps", "-aq").split(), check=False)
        docker("rmi", "links")


@pytest.mark.proves("ContainerConfig.Env")
def test_the_environment(docker: DockerCLI) -> None:
    path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    assert docker.out("run", "--rm", "--hostname", "h", "busybox", "env").split() == [
        path,
        "HOSTNAME=h",
        "HOME=/root",
    ]
    assert docker.out("run", "--rm", "-t", "--hostname", "h", "busybox", "env").split() == [
        path,
        "HOSTNAME=h",
        "TERM=xterm",
        "HOME=/root",
    ]
    own = docker.out("run", "--rm", "-e", "A=1", "-e", "PATH=/bin", "-e", "HOSTNAME", "busybox", "env")
    assert sorted(own.split()) == ["A=1", "HOME=/root", "PATH=/bin"]


@pytest.mark.proves("ContainerConfig.Entrypoint", "ContainerConfig.Cmd")
def test_entrypoint_and_command(daemon: Longshored, docker: DockerCLI, tmp_path: Path) -> None:
    config = {"Entrypoint": ["echo", "entry"], "Cmd": ["cmd"], "Env": ["PATH=/bin"], "WorkingDir": "/www"}
    docker_archive(tmp_path / "e.tar", [Busybox.layer()], ["entry:latest"], config)
    daemon.load(tmp_path / "e.tar")
    try:
        run = ("run", "--rm")
        assert docker.out(*run, "entry") == "entry cmd"
        assert docker.out(*run, "entry", "mine") == "entry mine"
        assert docker.out(*run, "--entrypoint", "pwd", "entry") == "/www"
        assert docker.out(*run, "--entrypoint", "", "entry", "ls") == "index.html"
        done = docker(*run, "--entrypoint", "", "entry", check=False)
        assert "no command specified" in done.stderr
    finally:
        docker("rmi", "entry")


@pytest.mark.proves("HostConfig.Init")
def test_init_reaps_and_is_pid_one(docker: DockerCLI) -> None:
    assert sh(docker, "--init", script="cat /proc/1/comm; ls /sbin/docker-init").split() == [
        "docker-init",
        "/sbin/docker-init",
    ]
    assert sh(docker, script="true; cat /proc/1/comm; true") == "sh"


def cgroup(docker: DockerCLI, name: str, controller: str) -> Path:
    """The cgroup of a running container, where the machine has that controller."""
    pid = docker.out("inspect", "-f", "{{.State.Pid}}", name)
    unified = Path("/sys/fs/cgroup/unified")
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            return Path(f"/sys/fs/cgroup/{controllers}{path}")
        if controllers == "" and not unified.exists() and Path("/sys/fs/cgroup/cgroup.controllers").exists():
            return Path(f"/sys/fs/cgroup{path}")
    pytest.skip(f"this machine has no {controller} controller")


def value(directory: Path, v1: str, v2: str) -> str:
    file = directory / v1 if (directory / v1).exists() else directory / v2
    return file.read_text().strip()


def test_resources_are_in_the_cgroup(docker: DockerCLI) -> None:
    docker(
        "run", "-d", "--name", "limited", "-m", "64m", "--memory-swap", "64m", "--cpus", "0.5",
        "--pids-limit", "50", "--cpuset-cpus", "0", "busybox", "sleep", "600",
    )  # fmt: skip
    memory = cgroup(docker, "limited", "memory")
    assert value(memory, "memory.limit_in_bytes", "memory.max") == str(64 << 20)
    cpu = cgroup(docker, "limited", "cpu")
    assert value(cpu, "cpu.cfs_quota_us", "cpu.max").split()[0] == "50000"
    assert value(cgroup(docker, "limited", "pids"), "pids.max", "pids.max") == "50"
    assert value(cgroup(docker, "limited", "cpuset"), "cpuset.cpus", "cpuset.cpus") == "0"


@pytest.mark.proves("HostConfig.CgroupParent")
def test_a_cgroup_parent(docker: DockerCLI) -> None:
    parent = f"/lsh-test-parent-{os.getpid()}"
    docker("run", "-d", "--name", "child", "--cgroup-parent", parent, "busybox", "sleep", "600")
    try:
        id = docker.out("inspect", "-f", "{{.Id}}", "child")
        assert str(cgroup(docker, "child", "memory")).endswith(f"{parent}/{id}")
    finally:
        docker("rm", "-f", "child")
        for directory in Path("/sys/fs/cgroup").glob(f"*{parent}"):
            directory.rmdir()
        for directory in Path("/sys/fs/cgroup").glob(parent[1:]):
            directory.rmdir()


@pytest.mark.proves("HostConfig.Memory")
def test_a_process_that_takes_too_much_memory_is_killed(docker: DockerCLI) -> None:
    script = "x=a; while :; do x=$x$x; done"
    done = docker(
        "run", "--name", "hungry", "-m", "16m", "--memory-swap", "16m", "busybox", "sh", "-c", script,
        check=False,
    )  # fmt: skip
    assert done.returncode == 137
    assert docker.out("inspect", "-f", "{{.State.OOMKilled}}", "hungry") == "true"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["-m", "1m"], "Minimum memory limit allowed is 6MB"),
        (
            ["-m", "100m", "--memory-swap", "50m"],
            "Minimum memoryswap limit should be larger than memory limit, see usage",
        ),
        (
            ["--memory-swap", "50m"],
            "You should always set the Memory limit when using Memoryswap limit, see usage",
        ),
        (
            ["-m", "100m", "--memory-reservation", "200m"],
            "Minimum memory limit can not be less than memory reservation limit, see usage",
        ),
        (["--cpuset-cpus", "a"], "Invalid value a for cpuset cpus: invalid format: a"),
        (["--runtime", "nosuch"], "unknown or invalid runtime name: nosuch"),
    ],
)
def test_resources_that_cannot_be(docker: DockerCLI, options: Arguments, message: str) -> None:
    assert refused(docker, *options, "busybox") == message
