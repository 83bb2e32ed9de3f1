"""What log drivers put on disk, and how they refuse options."""

import gzip
import json
import re
import time
from pathlib import Path

import pytest
from logs.support import CONTAINER, driver_in, info

from longshore.errors import InvalidParameter
from longshore.logs.driver import create_log_driver, validate_log_opts
from longshore.logs.info import parse_tag
from longshore.logs.lines import PIECE, LineSplitter
from longshore.logs.options import parse_decimal_size

NOW = 1_700_000_000_120_000_000
TIME = '"time":"2023-11-14T22:13:20.12Z"}\n'


_NO_FIELD = (
    'template: log-tag:1:2: executing "log-tag" at <.Foo>: can\'t evaluate field Foo in type *logger.Info'
)


def written(directory: Path) -> bytes:
    return (directory / f"{CONTAINER}-json.log").read_bytes()


@pytest.mark.parametrize(
    ("output", "stored"),
    [
        (b"hi", rb"hi"),
        (b'"quoted" back\\slash\\n', rb"\"quoted\" back\\slash\\n"),
        (b"tab\tcr\resc\x1b nul\0 del\x7f", b"tab\\u0009cr\\resc\\u001b nul\\u0000 del\x7f"),
        (b"<a href='x'>&</a>", rb"\u003ca href='x'\u003e\u0026\u003c/a\u003e"),
        ("grüße \u2028 \ufffd".encode(), "grüße \\u2028 \ufffd".encode()),
        (b"bad \xff\xe2\x82 utf-8", rb"bad \ufffd\ufffd\ufffd utf-8"),
        (b"", b""),
    ],
)
def test_json_file_escapes_as_go_does(tmp_path: Path, output: bytes, stored: bytes) -> None:
    driver = driver_in(tmp_path)
    driver.log("stdout", output + b"\n" + output + b"\n", NOW, False)
    driver.log("stderr", output, NOW, True)
    driver.close()
    line = b'{"log":"' + stored + b'\\n","stream":"stdout",' + TIME.encode()
    assert written(tmp_path) == line * 2 + b'{"log":"' + stored + b'","stream":"stderr",' + TIME.encode()


def test_attributes(tmp_path: Path) -> None:
    options = {"labels": "b,a,none", "env-regex": "^P", "tag": "{{.Name}}/{{.ID}}"}
    about = info(tmp_path, labels={"a": "1", "b": "2", "c": "3"}, env=["PATH=/bin", "HOME=/"])
    driver = create_log_driver("json-file", options, about)
    assert driver is not None
    driver.log("stdout", b"x\n", NOW, False)
    driver.close()
    attributes = '{"PATH":"/bin","a":"1","b":"2","tag":"box/cccccccccccc"}'
    assert written(tmp_path).decode() == '{"log":"x\\n","stream":"stdout","attrs":' + attributes + "," + TIME


def test_the_file_is_private_and_a_link_is_not_followed(tmp_path: Path) -> None:
    driver_in(tmp_path).close()
    path = tmp_path / f"{CONTAINER}-json.log"
    assert path.stat().st_mode & 0o777 == 0o640
    path.unlink()
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic links"):
        driver_in(tmp_path)


def fill(directory: Path, lines: int, **options: str) -> None:
    driver = driver_in(directory, **options)
    block = b"".join(b"line %d\n" % number for number in range(lines))
    driver.log("stdout", block, NOW, False)
    driver.close()


def numbers(data: bytes) -> list[int]:
    return [int(json.loads(line)["log"].split()[1]) for line in data.splitlines()]


def test_rotation_within_one_block(tmp_path: Path) -> None:
    fill(tmp_path, 100, max_size="1k", max_file="3")
    path = tmp_path / f"{CONTAINER}-json.log"
    files = [path.with_name(path.name + suffix) for suffix in (".2", ".1", "")]
    assert sorted(tmp_path.iterdir()) == sorted(files)
    kept = [number for file in files for number in numbers(file.read_bytes())]
    assert kept == list(range(kept[0], 100))
    for file in files[:2]:
        # As dockerd: the record that goes over the limit is the file's last.
        data = file.read_bytes()
        assert len(data) >= 1000 > len(data) - len(data.splitlines(keepends=True)[-1])


def test_one_file_starts_over(tmp_path: Path) -> None:
    fill(tmp_path, 100, max_size="1k")
    assert [file.name for file in tmp_path.iterdir()] == [f"{CONTAINER}-json.log"]
    assert numbers(written(tmp_path))[-1] == 99


def wait_for_compression(directory: Path) -> None:
    deadline = time.monotonic() + 10
    while any(re.search(r"\.(tmp|\d)$", file.name) for file in directory.iterdir()):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_rotated_files_are_compressed(tmp_path: Path) -> None:
    driver = driver_in(tmp_path, max_size="2k", max_file="9", compress="true")
    driver.log("stdout", b"".join(b"line %d\n" % number for number in range(100)), NOW, False)
    wait_for_compression(tmp_path)
    driver.close()
    packed = sorted(tmp_path.glob("*.gz"), reverse=True)
    assert len(packed) > 1
    kept = [number for file in packed for number in numbers(gzip.decompress(file.read_bytes()))]
    assert kept + numbers(written(tmp_path)) == list(range(100))


def test_what_was_left_uncompressed_is_compressed_later(tmp_path: Path) -> None:
    fill(tmp_path, 40, max_size="1k", max_file="9")
    assert not list(tmp_path.glob("*.gz"))
    driver = driver_in(tmp_path, max_size="1k", max_file="9", compress="true")
    wait_for_compression(tmp_path)
    driver.close()
    packed = sorted(tmp_path.glob("*.gz"), reverse=True)
    kept = [number for file in packed for number in numbers(gzip.decompress(file.read_bytes()))]
    assert kept + numbers(written(tmp_path)) == list(range(40))


def test_reopening_appends_and_keeps_rotating(tmp_path: Path) -> None:
    for _ in range(4):
        fill(tmp_path, 10, max_size="1k", max_file="10")
    path = tmp_path / f"{CONTAINER}-json.log"
    files = sorted(tmp_path.iterdir(), key=lambda file: -int("0" + file.name[len(path.name) + 1 :]))
    kept = [number for file in files for number in numbers(file.read_bytes())]
    assert kept == list(range(10)) * 4


def test_a_torn_record_is_kept_apart(tmp_path: Path) -> None:
    fill(tmp_path, 2)
    path = tmp_path / f"{CONTAINER}-json.log"
    whole = path.read_bytes()
    path.write_bytes(whole[:-5])
    fill(tmp_path, 1)
    assert (
        path.read_bytes()
        == whole[:-5] + b"\n" + whole.splitlines(keepends=True)[0][:-31] + path.read_bytes()[-31:]
    )


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("json-file", {"foo": "1"}, "unknown log opt 'foo' for json-file log driver"),
        ("local", {"foo": "1"}, "unknown log opt 'foo' for log driver local"),
        ("nope", {}, 'error looking up logging plugin nope: plugin "nope" not found'),
        ("json-file", {"mode": "fast"}, "logger: logging mode not supported: fast"),
        (
            "json-file",
            {"max-buffer-size": "1m"},
            "logger: max-buffer-size option is only supported with 'mode=non-blocking'",
        ),
        (
            "local",
            {"mode": "non-blocking", "max-buffer-size": "x"},
            "error parsing option max-buffer-size: invalid size: 'x'",
        ),
    ],
)
def test_options_are_refused(name: str, options: dict[str, str], message: str) -> None:
    with pytest.raises(InvalidParameter) as raised:
        validate_log_opts(name, options)
    assert raised.value.message == message


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tag": "{{.Foo}}"}, _NO_FIELD),
        ({"max-size": "many"}, "invalid size: 'many'"),
        ({"max-size": "0"}, "max-size must be a positive number"),
        ({"max-file": "x"}, 'strconv.Atoi: parsing "x": invalid syntax'),
        ({"max-file": "0"}, "max-file cannot be less than 1"),
        (
            {"compress": "true"},
            "compress cannot be true when max-file is less than 2 or max-size is not set",
        ),
    ],
)
def test_values_are_refused(tmp_path: Path, options: dict[str, str], message: str) -> None:
    with pytest.raises(InvalidParameter) as raised:
        create_log_driver("json-file", options, info(tmp_path))
    assert raised.value.message == message
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max-size": "many"}, "invalid value for max-size: many: invalid size: 'many'"),
        ({"max-file": "x"}, 'invalid value for max-file: x: strconv.Atoi: parsing "x": invalid syntax'),
        ({"max-file": "1"}, "compression cannot be enabled when max file count is 1"),
        (
            {"compress": "maybe"},
            'error reading compress log option: strconv.ParseBool: parsing "maybe": invalid syntax',
        ),
    ],
)
def test_local_refuses_values_in_its_own_words(tmp_path: Path, options: dict[str, str], message: str) -> None:
    with pytest.raises(InvalidParameter) as raised:
        create_log_driver("local", options, info(tmp_path, "local"))
    assert raised.value.message == message


def test_sizes_are_decimal() -> None:
    assert [parse_decimal_size(text) for text in ("10", "10k", "1.5MB", "2g")] == [
        10,
        10_000,
        1_500_000,
        2 * 10**9,
    ]


def test_none_is_no_driver(tmp_path: Path) -> None:
    assert create_log_driver("none", {"whatever": "1"}, info(tmp_path)) is None


def split(*chunks: bytes) -> list[tuple[bytes, bool]]:
    splitter = LineSplitter()
    return [block for chunk in chunks for block in splitter.feed(chunk)] + list(splitter.flush())


def test_lines_are_cut_as_dockerds_copier_cuts_them() -> None:
    assert split(b"a\nb", b"c\nd") == [(b"a\n", False), (b"bc\n", False), (b"d", True)]
    longest = b"x" * (PIECE - 1) + b"\n"
    assert split(longest) == [(longest, False)]
    assert split(b"x" * PIECE + b"\n") == [(b"x" * PIECE, True), (b"\n", False)]
    assert split(b"a\n" + b"x" * (PIECE * 2 + 5), b"y\nb\n") == [
        (b"a\n", False),
        (b"x" * PIECE, True),
        (b"x" * PIECE, True),
        (b"xxxxxy\nb\n", False),
    ]
    many = b"".join(b"%d\n" % number for number in range(50_000))
    assert split(*[many[at : at + 777] for at in range(0, len(many), 777)])[-1][1] is False
    assert b"".join(block for block, _ in split(many)) == many


def test_non_blocking_drops_the_newest(tmp_path: Path) -> None:
    driver = driver_in(tmp_path, mode="non-blocking", max_buffer_size="4k")
    for number in range(1000):
        driver.log("stdout", b"line %d\n" % number, NOW, False)
    driver.close()
    kept = numbers(written(tmp_path))
    assert kept == sorted(set(kept))
    assert kept[0] == 0


@pytest.mark.parametrize(
    ("template", "tag"),
    [("{{upper .Name}}", "BOX"), ("{{truncate .FullID 4}}", "cccc"), ("{{slice .Name 1 2}}", "o")],
)
def test_functions_in_tags(tmp_path: Path, template: str, tag: str) -> None:
    assert parse_tag(template, info(tmp_path)) == tag
