"""AppArmor: the default profile, which the daemon loads, and what an administrator's own does."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest
from harness import DockerCLI

from longshore.linux import apparmor

pytestmark = pytest.mark.skipif(
    not apparmor.enabled(), reason="needs a kernel with AppArmor enabled, and apparmor_parser"
)
CONFINEMENT = "/proc/self/attr/current"


def test_the_default_profile_is_loaded_when_it_is_not_there(docker: DockerCLI) -> None:
    if apparmor.is_loaded("docker-default"):
        policy = "profile docker-default {}"
        subprocess.run([apparmor.PARSER, "-R"], input=policy, text=True, check=True, capture_output=True)
    assert docker.out("run", "--name", "box", "busybox", "cat", CONFINEMENT) == "docker-default (enforce)"
    assert docker.out("inspect", "-f", "{{.AppArmorProfile}}", "box") == "docker-default"
    assert apparmor.is_loaded("docker-default")


def test_what_the_default_profile_denies(docker: DockerCLI) -> None:
    """With every capability and writable /proc and /sys, so that nothing else denies it."""
    docker(
        *("run", "-d", "--name", "box", "--cap-add", "ALL", "--security-opt", "systempaths=unconfined"),
        *("--security-opt", "seccomp=unconfined", "busybox", "sleep", "100"),
    )
    for command, allowed in (
        ("mount -t tmpfs x /mnt", False),
        ("echo 1 > /proc/sysrq-trigger", False),
        ("cat /proc/kcore", False),
        ("ls /sys/firmware/", True),
        ("cat /sys/kernel/security/apparmor/profiles", False),
        ("echo x > /proc/sys/vm/swappiness", False),
        ("echo 8 > /proc/sys/kernel/panic", False),
        ("cat /proc/sys/kernel/shmmax > /tmp/x && cat /tmp/x > /proc/sys/kernel/shmmax", True),
        ("echo 0 > /proc/self/oom_score_adj", True),
        ("touch /tmp/x; ps; kill -0 1", True),
    ):
        done = docker("exec", "box", "sh", "-c", command, check=False)
        assert (done.returncode == 0) is allowed, (command, done.stdout, done.stderr)
    docker("stop", "-t", "0", "box")


@pytest.mark.parametrize(
    ("options", "wanted"),
    [(("--privileged",), "unconfined"), (("--security-opt", "apparmor=unconfined"), "unconfined")],
)
def test_unconfined(docker: DockerCLI, options: tuple[str, ...], wanted: str) -> None:
    docker("run", "-d", "--name", "box", *options, "busybox", "sleep", "100")
    assert docker.out("inspect", "-f", "{{.AppArmorProfile}}", "box") == wanted
    assert docker.out("exec", "box", "cat", CONFINEMENT) == wanted


@pytest.fixture
def own_profile(root: None) -> Iterator[str]:
    """A profile that lets no one read /etc/hostname."""
    policy = "profile longshore-test flags=(attach_disconnected) { file, capability, network, signal, %s }"
    denied = policy % "deny /etc/hostname r,"
    apparmor.load(denied)
    yield "longshore-test"
    subprocess.run([apparmor.PARSER, "-R"], input=denied, text=True, check=True, capture_output=True)


def test_a_profile_of_the_administrators_own(docker: DockerCLI, own_profile: str) -> None:
    docker(
        *("run", "-d", "--name", "box", "--security-opt", f"apparmor={own_profile}"),
        *("busybox", "sleep", "100"),
    )
    assert docker.out("exec", "box", "cat", CONFINEMENT) == f"{own_profile} (enforce)"
    assert docker("exec", "box", "cat", "/etc/hostname", check=False).returncode == 1
    assert docker.out("inspect", "-f", "{{.AppArmorProfile}}", "box") == own_profile


def test_a_profile_that_is_not_loaded(docker: DockerCLI) -> None:
    done = docker("run", "--security-opt", "apparmor=no-such-profile", "busybox", "true", check=False)
    # runc says "unable to apply apparmor profile", crun what it could not write to.
    assert done.returncode and ("apply apparmor" in done.stderr or "attr/exec" in done.stderr), done.stderr


def test_the_daemon_says_so(docker: DockerCLI) -> None:
    assert "name=apparmor" in docker.out("info", "-f", "{{json .SecurityOptions}}")
