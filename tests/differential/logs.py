"""Log drivers: options refused at the creation and at the start, and logs read back."""

from __future__ import annotations

from differential.compare import Case, case, request
from differential.containers import IMAGE, created, exited

NONE = {"NetworkMode": "none"}
SPLUNK = {"splunk-url": "http://127.0.0.1:1", "splunk-token": "t"}


def logging(driver: str, **options: str) -> dict[str, object]:
    """A host configuration with that log; options are written with underscores."""
    given = {name.replace("_", "-"): value for name, value in options.items()}
    return {**NONE, "LogConfig": {"Type": driver, "Config": given}}


def refused(driver: str, newer: str | None = None, /, **options: str) -> Case:
    """A creation."""
    body = {**IMAGE, "Cmd": ["true"], "HostConfig": logging(driver, **options)}
    return case(f"log options: {driver} {options}", "POST /containers/create", body, newer=newer)


def started(driver: str, newer: str | None = None, /, **options: str) -> Case:
    """A start, which is where dockerd looks at the values of some."""
    return case(
        f"log start: {driver} {options}",
        "POST /containers/box/start",
        given=created(HostConfig=logging(driver, **options)),
        newer=newer,
    )


def read(name: str, query: str, driver: str = "json-file", **options: str) -> Case:
    """A log of lines of both streams, read back as bytes."""
    command = [
        "sh",
        "-c",
        "for i in 1 2 3 4 5; do echo out $i; sleep 0.02; echo err $i >&2; sleep 0.02; done",
    ]
    body = {"Cmd": command, "HostConfig": logging(driver, **options), "Env": ["A=1"], "Labels": {"b": "2"}}
    return case(
        f"log of {driver}: {name}",
        f"GET /containers/box/logs?stdout=1&stderr=1&{query}",
        given=exited(**body),
        raw=True,
    )


CASES: list[Case] = [
    refused("json-file", nope="1"),
    refused("local", nope="1"),
    refused("syslog", nope="1"),
    refused("gelf", nope="1", gelf_address="udp://127.0.0.1:1"),
    refused("fluentd", nope="1"),
    refused("journald", nope="1"),
    refused("splunk", nope="1"),
    refused("syslog", syslog_address="nope"),
    refused("syslog", syslog_facility="nope"),
    refused("syslog", "invalid syslog format", syslog_format="nope"),
    refused("gelf"),
    refused("gelf", gelf_address="nope"),
    refused("gelf", gelf_address="udp://127.0.0.1:1", gelf_compression_type="nope"),
    refused("gelf", gelf_address="udp://127.0.0.1:1", gelf_compression_level="10"),
    refused("gelf", gelf_address="tcp://127.0.0.1:1", gelf_compression_type="gzip"),
    refused("gelf", gelf_address="tcp://127.0.0.1:1", gelf_tcp_max_reconnect="-1"),
    refused("gelf", gelf_address="udp://127.0.0.1:1", gelf_tcp_reconnect_delay="1"),
    refused("fluentd", fluentd_buffer_limit="x"),
    refused("fluentd", fluentd_retry_wait="5"),
    refused("fluentd", fluentd_max_retries="-1"),
    refused("fluentd", fluentd_async="x"),
    refused("json-file", mode="nope"),
    refused("json-file", max_buffer_size="1m"),
    refused("json-file", mode="non-blocking", max_buffer_size="x"),
    refused("local", cache_disabled="x"),
    refused("none", whatever="1"),
    started("json-file", max_size="x"),
    started("json-file", max_file="0"),
    started("json-file", max_size="1k", compress="true"),
    started("json-file", compress="maybe"),
    started("json-file", tag="{{.Nope}}"),
    started("local", max_size="x"),
    started("local", max_file="0"),
    started("local", compress="true", max_file="1"),
    started("splunk"),
    started("splunk", splunk_url="http://127.0.0.1:1"),
    started("splunk", splunk_url="nope", splunk_token="t"),
    started("splunk", **{**SPLUNK, "splunk-gzip-level": "10"}),
    started("splunk", **{**SPLUNK, "splunk-gzip": "x"}),
    started("splunk", **SPLUNK),
    started("fluentd", fluentd_address="127.0.0.1:1"),
    started("gelf", gelf_address="tcp://127.0.0.1:1"),
    started("syslog", syslog_address="tcp://127.0.0.1:1"),
    *(
        read(name, query, driver)
        for driver in ("json-file", "local")
        for name, query in (
            ("all", ""),
            ("tail", "tail=3"),
            ("tail of all", "tail=all"),
            ("tail that is none", "tail=x"),
            ("negative tail", "tail=-1"),
            ("tail of nothing", "tail=0"),
            ("follow what has ended", "follow=1"),
            ("follow a tail of what has ended", "follow=1&tail=2"),
            ("since the future", "since=9999999999"),
            ("until the past", "until=1"),
            ("since and until", "since=1&until=9999999999"),
        )
    ),
    read("details", "details=1", labels="b", env="A", tag="{{.Name}}"),
    read("details without any", "details=1"),
    read("details by expressions", "details=1", labels_regex="^b", env_regex="^A$"),
    read("rotated", "tail=8", max_size="200", max_file="10"),
    read("rotated and gone", "", max_size="200", max_file="2"),
    read("rotated and compressed", "", max_size="200", max_file="10", compress="true"),
    read("rotated", "", "local", max_size="100", max_file="20"),
    read("not blocking", "", mode="non-blocking", max_buffer_size="1m"),
    read("details", "details=1", "local"),
    case("logs: since that is no time", "GET /containers/box/logs?stdout=1&since=x", given=created()),
    case("logs: until that is no time", "GET /containers/box/logs?stdout=1&until=1h", given=created()),
    case(
        "logs: of a container that never ran", "GET /containers/box/logs?stdout=1", given=created(), raw=True
    ),
    case(
        "logs: driver none",
        "GET /containers/box/logs?stdout=1",
        given=(*created(HostConfig=logging("none")), request("POST /containers/box/start")),
    ),
]
