"""COPY and ADD by the real daemon: flags, layers that are linked, and what wants to lead elsewhere."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest
from differential.builds import archive, build, error
from engine.test_build import Files, builder, made, refused, text
from harness import Client, Longshored

__all__ = ["builder"]


def test_flags_of_copy(builder: Longshored) -> None:
    shown = made(
        builder,
        """FROM busybox
COPY --chmod=640 d/x /m/octal
COPY --chmod=u=rwX,go= d /m/symbolic
COPY --parents d/x d/./sub/y /p/
COPY --exclude=*.md --exclude=sub d /e
COPY **/y /deep/
RUN stat -c '%a %n' /m/octal /m/symbolic/sub /m/symbolic/x; find /p /e /deep -type f | sort
""",
        {"d/x": b"x", "d/sub/y": b"y", "d/r.md": b"r"},
    )
    assert "640 /m/octal\n700 /m/symbolic/sub\n600 /m/symbolic/x\n" in shown
    assert "/deep/y\n/e/x\n/p/d/x\n/p/sub/y\n" in shown


def _layers(daemon: Longshored, image: str) -> list[str]:
    return list(Client(daemon.socket, "1.50").get(f"/images/{image}/json").json["RootFS"]["Layers"])


def test_linked_layers_outlive_their_base(builder: Longshored) -> None:
    """They are made by themselves, and found by what is in them alone."""
    dockerfile = "FROM {base}\nENV {env}\nCOPY --link --chown={owner} d /x/y/\nADD --link a.tar /z/\n"
    files: Files = {"d/f": b"f", "d/l": "f", "a.tar": archive("", {"g": b"g"})}
    steps = "FROM busybox\nRUN echo {0} > /n; echo me:x:7:8:: >> /etc/passwd; echo me:x:8: >> /etc/group\n"
    for number in "12":
        made(builder, steps.format(number), t=f"base:{number}")
    made(builder, dockerfile.format(base="base:1", env="A=1", owner="me"), files, t="made:1")
    first = _layers(builder, "made:1")
    shown = made(builder, dockerfile.format(base="base:2", env="A=2", owner="7:8"), files, t="made:2")
    assert shown.count("Using cache") == 2
    second = _layers(builder, "made:2")
    assert first[:-2] != second[:-2]
    assert first[-2:] == second[-2:]
    shown = made(builder, "FROM made:2\nRUN stat -c '%u:%g %n' /x/y/f /z/g; cat /n; env\n")
    assert "7:8 /x/y/f\n0:0 /z/g\n2\n" in shown
    assert "A=2\n" in shown
    made(builder, dockerfile.format(base="base:2", env="A=2", owner="9:9"), files, t="made:3")
    assert _layers(builder, "made:3")[-2] != second[-2]
    made(builder, dockerfile.format(base="base:1", env="B=1", owner="me"), files | {"d/f": b"g"}, t="made:4")
    assert [a == b for a, b in zip(_layers(builder, "made:4")[-2:], first[-2:], strict=True)] == [False, True]


def test_linked_layers_follow_nothing_below(builder: Longshored) -> None:
    shown = made(
        builder,
        "FROM busybox\nRUN ln -s /www /a && ln -s /etc/passwd /p && mkdir /k && touch /k/old\n"
        "COPY --link f /a/f\nCOPY --link f /p\nCOPY --link f /k/new\nCOPY --link f /tmp/f\n"
        "RUN test ! -L /a && ls /a /k; cat /p; ls /www; stat -c %a /tmp; grep -c root /etc/passwd\n",
        {"f": b"copied\n"},
    )
    assert "/a:\nf\n\n/k:\nnew\nold\ncopied\nindex.html\n755\n1\n" in shown


def test_a_linked_layer_on_nothing(builder: Longshored) -> None:
    dockerfile = "FROM scratch\nCOPY --link f /f\nCOPY --link e /\n"
    files: Files = {"f": b"f", "e": None}
    made(builder, dockerfile, files)
    assert len(_layers(builder, "made:1")) == 1
    assert made(builder, dockerfile, files).count("Using cache") == 2
    made(builder, "FROM busybox\n" + dockerfile.partition("\n")[2] + "RUN cat /f\n", files)


@pytest.mark.parametrize(
    ("name", "link"),
    [("up", "../../../../../../etc/passwd"), ("absolute", "/etc/passwd"), ("proc", "/proc/self/environ")],
)
def test_links_lead_nowhere_outside_the_context(builder: Longshored, name: str, link: str) -> None:
    files: Files = {"l": link, "dir/l": link}
    assert "file not found in build context" in refused(builder, "FROM busybox\nCOPY l /l\n", files)
    shown = made(builder, "FROM busybox\nCOPY dir /d\nRUN readlink /d/l\n", files)
    assert f"\n{link}\n" in shown
    assert "stat" in refused(builder, "FROM busybox\nRUN --mount=source=l,target=/x cat /x\n", files)


def test_links_in_an_image_lead_nowhere_outside(builder: Longshored, tmp_path: Path) -> None:
    made(
        builder,
        f"FROM busybox\nRUN ln -s {tmp_path} /out && ln -s ../../../../../../{tmp_path} /up\n"
        "COPY f /out/f\nCOPY f /up/f\nADD a.tar /out/\n",
        {"f": b"f", "a.tar": archive("", {"g": b"g"})},
    )
    assert list(tmp_path.iterdir()) == []


def test_contexts_that_want_out(builder: Longshored, tmp_path: Path) -> None:
    target = tmp_path / "target"
    assert build(builder, archive("FROM busybox\n", {f"../../../../..{target}": b""})).status == 400
    files: Files = {"l": str(tmp_path), "l/target": b""}
    build(builder, archive("FROM busybox\n", files))
    assert not target.exists()
    assert build(builder, b"this is no archive" * 100).status == 400
    assert build(builder, archive("FROM busybox\n")[:515]).status == 400
    assert build(builder, b"").status == 400
    assert "forbidden path" in refused(builder, "FROM busybox\n", dockerfile="../../../etc/shadow")
    leads_out: Files = {"Dockerfile": "/etc/passwd"}
    assert "Cannot locate" in error(build(builder, archive("", leads_out)))


def test_an_archive_that_climbs_its_own_link(builder: Longshored, tmp_path: Path) -> None:
    unpacked = archive("", {"out": str(tmp_path), "out/h": b"h"})
    assert "file exists" in refused(builder, "FROM busybox\nADD a.tar /\n", {"a.tar": unpacked})
    assert list(tmp_path.iterdir()) == []


def test_devices_are_never_opened(builder: Longshored) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, kind, major, minor in (
            ("d/zero", tarfile.CHRTYPE, 1, 5),  # reading it would not end
            ("d/fifo", tarfile.FIFOTYPE, 0, 0),
            ("d/block", tarfile.BLKTYPE, 7, 250),
        ):
            entry = tarfile.TarInfo(name)
            entry.type, entry.devmajor, entry.devminor = kind, major, minor
            tar.addfile(entry)
        content = b"FROM busybox\nCOPY d /d\nCOPY d/zero /z\nRUN ls -l /d /z\n"
        entry = tarfile.TarInfo("Dockerfile")
        entry.size = len(content)
        tar.addfile(entry, io.BytesIO(content))
    shown = text(build(builder, buffer.getvalue()))
    assert shown.count("crw") == 2
    assert "prw" in shown


def test_dockerfiles_that_are_no_utf8(builder: Longshored) -> None:
    """Files are called as they are called; what goes into JSON is what Go would put there."""
    dockerfile = b"FROM busybox\nLABEL by=J\xf6rg\nCOPY \xf6 /\xf6\nCOPY <<E /raw\n\xf6\nE\n"
    dockerfile += b"RUN cat /$(printf '\\366'); od -t x1 /raw; echo \xf6\nNOPE\xf6\n"
    assert "unknown instruction: NOPE\ufffd" in error(build(builder, archive("", {"Dockerfile": dockerfile})))
    files: Files = {"Dockerfile": dockerfile.rpartition(b"NOPE")[0], "\udcf6": b"content\n"}
    shown = text(build(builder, archive("", files), t="made:1"))
    assert "content\n0000000 f6 0a\n0000002\n\ufffd\n" in shown
    image = Client(builder.socket, "1.50").get("/images/made:1/json").json
    assert image["Config"]["Labels"] == {"by": "J\ufffdrg"}
