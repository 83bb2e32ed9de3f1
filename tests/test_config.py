"""Flags and daemon.json, and what dockerd says of both."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from longshore.cli.longshored import build_parser, main
from longshore.config import DEFAULT_HOST, Config, directives, load, reload
from longshore.config.flags import parse_flags
from longshore.config.loading import normalize_host
from longshore.errors import InvalidParameter


def write(directory: Path, **keys: Any) -> str:
    path = directory / "daemon.json"
    path.write_text(json.dumps({key.replace("_", "-"): value for key, value in keys.items()}))
    return str(path)


def from_line(*words: str) -> dict[str, Any]:
    return parse_flags(vars(build_parser().parse_args(words)))


def test_defaults_are_dockerds(tmp_path: Path) -> None:
    config = load({}, str(tmp_path / "none.json"))
    assert config.hosts == [DEFAULT_HOST]
    assert config.data_root == "/var/lib/docker"
    assert config.shm_size == 64 << 20
    assert (config.icc, config.ip_masq, config.live_restore) == (True, True, False)
    assert config.shutdown_timeout == 15


def test_a_file_that_was_named_must_exist(tmp_path: Path) -> None:
    with pytest.raises(InvalidParameter, match=r"with file .*/none.json: open .*: no such file or directory"):
        load({}, str(tmp_path / "none.json"), file_required=True)


@pytest.mark.parametrize("content", ["", "  \n", "{}"])
def test_an_empty_file_says_nothing(tmp_path: Path, content: str) -> None:
    path = tmp_path / "daemon.json"
    path.write_text(content)
    assert load({}, str(path)).hosts == [DEFAULT_HOST]


def test_every_directive_can_be_in_the_file(tmp_path: Path) -> None:
    import msgspec

    settings = {one.key: msgspec.to_builtins(one.default) for one in directives()}
    assert load({}, write(tmp_path, **settings)).data_root == "/var/lib/docker"


def test_unknown_directives(tmp_path: Path) -> None:
    path = write(tmp_path, foo=1, bar=2)
    with pytest.raises(InvalidParameter) as caught:
        load({}, path)
    assert str(caught.value) == (
        f"unable to configure the Docker daemon with file {path}: "
        "the following directives don't match any configuration option: bar, foo"
    )


def test_flag_and_file_conflict(tmp_path: Path) -> None:
    path = write(tmp_path, mtu=1400, debug=True)
    with pytest.raises(InvalidParameter) as caught:
        load(from_line("--mtu=1300"), path)
    assert str(caught.value).endswith(
        "the following directives are specified both as a flag and in the configuration file: "
        "mtu: (from flag: 1300, from file: 1400)"
    )


def test_runtimes_of_flag_and_file_are_joined(tmp_path: Path) -> None:
    path = write(tmp_path, runtimes={"a": {"path": "/bin/a"}})
    config = load(from_line("--add-runtime", "b=/bin/b", "--default-runtime=a"), path)
    assert {name: runtime.path for name, runtime in config.runtimes.items()} == {"a": "/bin/a", "b": "/bin/b"}
    assert config.runtime("runc") is not None
    assert config.runtime("missing") is None


def test_flags_of_every_kind() -> None:
    flags = from_line(
        *("-D", "--icc=false", "-H", "unix:///x", "-H", "tcp://:1", "--log-opt", "max-size=1m", "--mtu", "9"),
        *("--default-ulimit", "nofile=10:20", "--default-address-pool", "base=10.0.0.0/8,size=24"),
        *(
            "--default-network-opt",
            "bridge=com.docker.network.driver.mtu=9",
            "--feature",
            "a",
            "--feature=b=false",
        ),
    )
    assert (flags["debug"], flags["icc"], flags["mtu"]) == (True, False, 9)
    assert flags["hosts"] == ["unix:///x", "tcp://:1"]
    assert flags["log_opts"] == {"max-size": "1m"}
    assert (flags["default_ulimits"]["nofile"].Soft, flags["default_ulimits"]["nofile"].Hard) == (10, 20)
    assert (flags["default_address_pools"][0].base, flags["default_address_pools"][0].size) == (
        "10.0.0.0/8",
        24,
    )
    assert flags["default_network_opts"] == {"bridge": {"com.docker.network.driver.mtu": "9"}}
    assert flags["features"] == {"a": True, "b": False}


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--mtu=x"], 'invalid argument "x" for "--mtu" flag: strconv.ParseInt: parsing "x": invalid syntax'),
        (["--icc=maybe"], 'parsing "maybe": invalid syntax'),
        (["--default-ulimit=nofile=3:2"], "soft limit must be less than or equal to hard limit"),
        (["--log-opt=x"], "x must be formatted as name=value"),
    ],
)
def test_bad_flags(words: list[str], text: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        from_line(*words)
    assert text in str(caught.value)


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        ({"labels": ["nope"]}, "bad attribute format: nope"),
        ({"dns": ["1.2.3"]}, "1.2.3 is not an ip address"),
        ({"bip": "10.0.0.1"}, "invalid CIDR address: 10.0.0.1"),
        ({"registry_mirrors": ["here"]}, 'invalid mirror: unsupported scheme "" in "here"'),
        ({"registry_mirrors": ["https://"]}, 'invalid mirror: "https://" is not a valid URI'),
        ({"registry_mirrors": ["http://a:x"]}, 'invalid mirror: "http://a:x" is not a valid URI'),
        (
            {"registry_mirrors": ["http://a/?x"]},
            'invalid mirror: query or fragment at end of the URI "http://a/?x"',
        ),
        (
            {"registry_mirrors": ["http://me:secret@a:5000"]},
            'invalid mirror: username/password not allowed in URI "http://me:xxxxx@a:5000"',
        ),
        ({"insecure_registries": ["ftp://a"]}, "insecure registry ftp://a should not contain '://'"),
        ({"insecure_registries": ["a/b"]}, "insecure registry a/b is not valid: invalid host"),
        ({"bip": "10.0.0.1/8", "bridge": "br0"}, "mutually exclusive"),
        ({"log_level": "loud"}, "invalid log-level: loud"),
        ({"default_runtime": "gone"}, "specified default runtime 'gone' does not exist"),
        ({"exec_opts": ["native.cgroupdriver=x"]}, "invalid exec-opt native.cgroupdriver=x"),
        ({"default_shm_size": "much"}, "invalid size: 'much'"),
        ({"selinux_enabled": True}, "selinux-enabled cannot be honoured: "),
        ({"seccomp_profile": "/nonexistent/p.json"}, "opening seccomp profile (/nonexistent/p.json) failed"),
    ],
)
def test_values_that_cannot_be(tmp_path: Path, flags: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        load(flags, str(tmp_path / "none.json"))
    assert text in str(caught.value)


@pytest.mark.parametrize(
    ("host", "tls", "expected"),
    [
        ("", False, DEFAULT_HOST),
        ("unix://", False, DEFAULT_HOST),
        ("/run/x.sock", False, "unix:///run/x.sock"),
        ("tcp://", False, "tcp://localhost:2375"),
        ("tcp://0.0.0.0", True, "tcp://0.0.0.0:2376"),
        ("tcp://[::1]:80", False, "tcp://[::1]:80"),
        ("tcp://[::1]", False, "tcp://[::1]:2375"),
        ("fd://", False, "fd://"),
    ],
)
def test_hosts_are_completed(host: str, tls: bool, expected: str) -> None:
    assert normalize_host(host, tls=tls) == expected


@pytest.mark.parametrize("host", ["http://x", "tcp://a:b", "tcp://a:99999"])
def test_hosts_that_cannot_be(host: str) -> None:
    with pytest.raises(InvalidParameter, match="invalid bind address format"):
        normalize_host(host, tls=False)


def test_tlsverify_implies_tls(tmp_path: Path) -> None:
    assert load({"tlsverify": True}, str(tmp_path / "none.json")).tls


def test_shm_size_may_be_a_number(tmp_path: Path) -> None:
    assert load({}, write(tmp_path, default_shm_size=1024)).shm_size == 1024


def test_reload_changes_what_dockerd_reloads(tmp_path: Path) -> None:
    path = write(tmp_path, labels=["a=1"], mtu=1400)
    before = load({}, path)
    write(tmp_path, labels=["a=2"], debug=True, mtu=1500)
    after, changed = reload(before, path)
    assert changed == ["debug", "labels"]
    assert (after.labels, after.debug, after.mtu) == (["a=2"], True, 1400)
    assert (before.labels, before.debug) == (["a=1"], False)


def test_a_bad_file_changes_nothing_on_reload(tmp_path: Path) -> None:
    path = write(tmp_path, debug=True)
    before = load({}, path)
    write(tmp_path, debug=False, nonsense=1)
    with pytest.raises(InvalidParameter):
        reload(before, path)
    assert before.debug


def test_reload_refuses_what_a_flag_said(tmp_path: Path) -> None:
    path = write(tmp_path)
    before = load(from_line("-D"), path)
    write(tmp_path, debug=False)
    with pytest.raises(InvalidParameter, match="specified both as a flag and in the configuration file"):
        reload(before, path)


def test_every_directive_has_one_flag_or_none() -> None:
    flags = [one.flag for one in directives() if one.flag]
    assert len(set(flags)) == len(flags)
    assert all(one.option.group and one.option.help for one in directives())


def test_validate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--validate", "--config-file", write(tmp_path, debug=True)]) == 0
    assert capsys.readouterr().out == "configuration OK\n"
    assert main(["--validate", "--config-file", write(tmp_path, nonsense=1)]) == 1
    assert "don't match any configuration option: nonsense" in capsys.readouterr().err


def test_unknown_flag(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--foo"])
    assert caught.value.code == 125
    assert "unknown flag: --foo" in capsys.readouterr().err


def test_config_alone_is_usable() -> None:
    assert Config(data_root="/x").runtimes == {}


def test_the_default_runtime_is_any_that_a_container_may_ask_for(tmp_path: Path) -> None:
    for name in ("runc", "io.containerd.runc.v2", "crun"):
        assert load({"default_runtime": name}, str(tmp_path / "none.json")).default_runtime == name
