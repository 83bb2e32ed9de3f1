"""Builds: Dockerfiles with their contexts, built by both daemons and compared in output, image and layers."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import re
import tarfile
from dataclasses import dataclass, field
from typing import Any

from differential.compare import LOWERCASE, normal
from harness import Client, Daemon, Response

Files = dict[str, "bytes | str | None"]
"""By path: bytes are a file, None a directory, a string a symbolic link's target."""


@dataclass(frozen=True)
class BuildCase:
    """A Dockerfile, what lies beside it, and the request's parameters."""

    name: str
    dockerfile: str
    files: Files = field(default_factory=dict)
    query: dict[str, Any] = field(default_factory=dict)
    before: str = ""
    """A Dockerfile built first, tagged `base`."""
    newer: str = ""
    """The error of newer versions, where it differs from the oracle's."""
    twice: bool = False
    """Build it again and compare that, too."""


def archive(dockerfile: str, files: Files | None = None, name: str = "Dockerfile") -> bytes:
    """A build context as a client sends it."""
    buffer = io.BytesIO()
    contents: Files = {**({name: dockerfile.encode()} if dockerfile else {}), **(files or {})}
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path, content in contents.items():
            entry = tarfile.TarInfo(path)
            entry.mtime = 1704067200
            if content is None:
                entry.type, entry.mode = tarfile.DIRTYPE, 0o750
            elif isinstance(content, str):
                entry.type, entry.linkname, entry.mode = tarfile.SYMTYPE, content, 0o777
            else:
                entry.size, entry.mode = len(content), 0o755 if content.startswith(b"#!") else 0o644
            tar.addfile(entry, io.BytesIO(content if isinstance(content, bytes) else b""))
    return buffer.getvalue()


def packed(files: Files) -> bytes:
    """A compressed archive, to be a file of a context."""
    return gzip.compress(archive("", files), mtime=0)


def build(daemon: Daemon, body: bytes, **query: Any) -> Response:
    """POST /build."""
    headers = {"Content-Type": "application/x-tar"}
    return Client(daemon.socket, "1.41", timeout=120).request(
        "POST", "/build", body, query=query, headers=headers
    )


def error(answer: Response) -> str:
    """What a build failed with: the answer as a whole, or its last message; "" if it did not."""
    if answer.status != 200:
        return str(answer.json["message"])
    return str(json.loads(answer.body.strip().split(b"\r\n")[-1]).get("error", ""))


def shown(answer: Response) -> Any:
    """What a build answers, without ids; output of commands is joined, since it comes in any pieces."""
    if answer.status != 200:
        return normal(answer.json)
    text, rest = "", []
    for line in answer.body.split(b"\r\n"):
        if not line:
            continue
        message = json.loads(line)
        # Output comes in any pieces, each of stderr's coloured by itself.
        text = (text + message.pop("stream", "")).replace("\x1b[0m\x1b[91m", "")
        if "aux" in message:
            message = {"aux": sorted(message["aux"])}
        if message:
            rest.append(normal(message))
    text = re.sub(r"\b[0-9a-f]{12}\b", "<id>", normal(text))
    return text, rest


def image(daemon: Daemon, name: str) -> dict[str, Any]:
    """What an image is: its configuration, its history, and the files of each layer."""
    client = Client(daemon.socket, "1.41", timeout=120)
    described = client.get(f"/images/{name}/json").expect(200).json
    config = {key: value for key, value in described["Config"].items() if value}
    config.pop("Image", None)
    history = client.get(f"/images/{name}/history").expect(200).json
    saved = client.get(f"/images/{name}/get")
    return {
        "Config": normal(config),
        "Author": described["Author"],
        "History": [_step(each["CreatedBy"]) for each in history],
        "Empty": [each["Size"] == 0 for each in history],
        # The oracle cannot save an image without layers.
        "Layers": _layers(saved.body) if saved.status == 200 else [],
    }


def _step(text: str) -> str:
    """A step of the history; the digests of what was copied are each builder's own."""
    text = re.sub(r" ?(file|dir|multi):[0-9a-f]{64}", r" \1:<digest>", text)
    # Newer versions tell of the interval while starting, too.
    return re.sub(r'(HEALTHCHECK &\{\[.*\] "\w+" "\w+" "\w+") "\w+"( \')', r"\1\2", text)


def _layers(saved: bytes) -> list[dict[str, Any]]:
    with tarfile.open(fileobj=io.BytesIO(saved)) as tar:
        file = tar.extractfile("manifest.json")
        assert file is not None
        names = json.load(file)[0]["Layers"] or []
        layers = []
        for name in names[1:]:  # The first is the base's.
            content = tar.extractfile(name)
            assert content is not None
            layers.append(_entries(content.read()))
        return layers


def _entries(layer: bytes) -> dict[str, Any]:
    found = {}
    with tarfile.open(fileobj=io.BytesIO(layer)) as tar:
        for entry in tar:
            content = tar.extractfile(entry) if entry.isreg() else None
            digest = hashlib.sha256(content.read()).hexdigest() if content is not None else ""
            # Whiteouts are links to each other where the kernel makes them so, which means nothing.
            link = "" if ".wh." in entry.name else entry.linkname
            time = 0 if entry.isdir() or entry.mtime > 1_710_000_000 else int(entry.mtime)
            found[entry.name.rstrip("/")] = (
                entry.type, oct(entry.mode & 0o7777), entry.uid, entry.gid, link, digest, time,
            )  # fmt: skip
    return found


TREE: Files = {
    "a.txt": b"A\n",
    "b.txt": b"B\n",
    "run.sh": b"#!/bin/sh\necho run\n",
    "dir": None,
    "dir/one": b"1",
    "dir/two": b"2",
    "dir/sub": None,
    "dir/sub/deep": b"deep",
    "dir/link": "one",
    "up": "../../../../etc/passwd",
    "tofile": "a.txt",
    "todir": "dir",
    "empty": None,
}
GZ = gzip.compress(b"no archive", mtime=0)
ON = "dockerfile parse error on line "
TRIGGERS = "FROM busybox\nONBUILD COPY dir /d\nONBUILD RUN ls /d\n"
IGNORE: Files = {".dockerignore": b"Dockerfile\n.dockerignore\n", "f": b"f"}
LONG = " && ".join(f"echo {number}" for number in range(400))

CASES = [
    BuildCase("only-from", "FROM busybox\n", query={"t": ["only:1", "only:2"]}),
    BuildCase(
        "configuration",
        """
        FROM busybox
        MAINTAINER me <me@example.org>
        ENV A=1 B="two words" C=x\\ y
        ENV OLD the rest of it
        ENV A=2 D=$A-${B}-${E:-none}
        LABEL one=1 "two words"='3 4' $A=b
        EXPOSE 80 443/tcp 53/udp 8000-8002
        USER user
        VOLUME /data "/more"
        VOLUME ["/json", "/array"]
        STOPSIGNAL SIGTERM
        SHELL ["/bin/sh", "-ec"]
        HEALTHCHECK --interval=5s --timeout=90s --retries=3 CMD wget -q localhost
        HEALTHCHECK --interval=6s --timeout=9s --retries=2 CMD ["true"]
        ONBUILD RUN echo $A
        ONBUILD COPY . /here
        ENTRYPOINT ["/bin/sh", "-c"]
        CMD echo "hi"
        """,
        twice=True,
    ),
    BuildCase("entrypoint-resets-cmd", 'FROM base\nENTRYPOINT ["e"]\n', before='FROM busybox\nCMD ["c"]\n'),
    BuildCase("cmd-stays", 'FROM base\nCMD ["d"]\nENTRYPOINT e f\n', before='FROM busybox\nCMD ["c"]\n'),
    BuildCase("run", "FROM busybox\nRUN echo out\nRUN echo err >&2; echo x > /f\n", twice=True),
    BuildCase("run-exec", 'FROM busybox\nRUN ["/bin/sh", "-c", "echo $0 $1", "a"]\n'),
    BuildCase("run-changes-nothing", "FROM busybox\nRUN true\n"),
    BuildCase("run-removes", "FROM busybox\nRUN rm -r /www/index.html /etc/group /home\n"),
    BuildCase("run-odd-files", "FROM busybox\nRUN mkfifo /p && ln -s nowhere /l && ln /bin/busybox /h\n"),
    BuildCase("run-modes", "FROM busybox\nRUN chmod 4711 /bin/busybox; chown 5:6 /tmp; chmod 700 /etc\n"),
    BuildCase("run-user", "FROM busybox\nUSER user\nRUN id -u && touch /tmp/mine\nUSER 0\nRUN id\n"),
    BuildCase("run-fails", "FROM busybox\nRUN echo before\nRUN false\nRUN true\n"),
    BuildCase("run-fails-forcerm", "FROM busybox\nRUN exit 7\n", query={"forcerm": 1}),
    BuildCase("run-fails-exec", 'FROM busybox\nRUN ["/bin/sh", "-c", "exit 3"]\n'),
    BuildCase("run-long", f"FROM busybox\nRUN {LONG}\n"),
    BuildCase("run-env", "FROM busybox\nENV X=y\nRUN env | grep -v HOSTNAME | sort\n"),
    BuildCase("run-entrypoint", 'FROM busybox\nENTRYPOINT ["false"]\nRUN echo runs\n'),
    BuildCase("run-volume", "FROM busybox\nVOLUME /v\nRUN touch /v/lost /kept\n"),
    BuildCase("run-shell", 'FROM busybox\nSHELL ["/bin/sh", "-xc"]\nRUN true\nCMD echo 2\n'),
    BuildCase("workdir", "FROM busybox\nWORKDIR /a\nWORKDIR b/c\nWORKDIR ../d\nRUN pwd\nWORKDIR /etc\n"),
    BuildCase("workdir-user", "FROM busybox\nUSER user\nWORKDIR /home/w\nRUN ls -ld .\n"),
    BuildCase("copy-file", "FROM busybox\nCOPY a.txt /\nCOPY a.txt /new/\nCOPY a.txt /new/name\n", TREE),
    BuildCase("copy-relative", "FROM busybox\nWORKDIR /w\nCOPY a.txt b\nCOPY a.txt c/\nCOPY dir .\n", TREE),
    BuildCase("copy-several", "FROM busybox\nCOPY a.txt b.txt dir /to/\n", TREE, twice=True),
    BuildCase("copy-several-to-file", "FROM busybox\nCOPY a.txt b.txt /to\n", TREE),
    BuildCase("copy-wildcard", "FROM busybox\nCOPY *.txt /t/\nCOPY [ab].t?t di*/one /u/\n", TREE),
    BuildCase("copy-no-match", "FROM busybox\nCOPY *.nope /t/\n", TREE),
    BuildCase("copy-missing", "FROM busybox\nCOPY nope /t/\n", TREE),
    BuildCase("copy-dir", "FROM busybox\nCOPY dir /d\nCOPY dir /e/\nCOPY dir/ /www\n", TREE),
    BuildCase("copy-all", "FROM busybox\nCOPY . /all\n", {k: v for k, v in TREE.items() if k != "up"}),
    BuildCase("copy-links", "FROM busybox\nCOPY tofile todir /to/\nCOPY todir/one /one\n", TREE),
    BuildCase("copy-through-link", "FROM busybox\nRUN ln -s /www /l\nCOPY a.txt /l/\nCOPY dir /l/x\n", TREE),
    BuildCase("copy-onto-link", "FROM busybox\nRUN ln -s /www/index.html /l\nCOPY a.txt /l\n", TREE),
    BuildCase(
        "copy-onto-dangling-link",
        "FROM busybox\nRUN ln -s /no/file /f && ln -s ../no/dir /www/d\nCOPY a.txt /f\nCOPY dir /www/d/x\n",
        TREE,
    ),
    BuildCase("copy-onto-dir", "FROM busybox\nCOPY a.txt /www\nCOPY dir /www/sub\n", TREE),
    BuildCase(
        "copy-below-file",
        "FROM busybox\nCOPY dir /www/index.html/x\n",
        TREE,
        newer="failed to copy files: mkdir /www/index.html/x: not a directory",
    ),
    BuildCase("copy-chown", "FROM busybox\nCOPY --chown=user a.txt dir /n/\nCOPY --chown=7:8 dir /m\n", TREE),
    BuildCase("copy-chown-names", "FROM busybox\nCOPY --chown=user:wheel a.txt /new/a\n", TREE),
    BuildCase("copy-chown-unknown", "FROM busybox\nCOPY --chown=nobody:x a.txt /a\n", TREE),
    BuildCase("copy-json", 'FROM busybox\nCOPY ["a.txt", "b.txt", "/a dir/"]\n', TREE),
    BuildCase("copy-variables", "FROM busybox\nENV D=/d F=a\nARG T=txt\nCOPY $F.${T} ${D}/\n", TREE),
    BuildCase("copy-outside", "FROM busybox\nCOPY ../../a.txt /../x/../y\n", TREE),
    BuildCase("copy-scratch", "FROM scratch\nCOPY dir /\nENV A=b\n", TREE),
    BuildCase("scratch-configuration", 'FROM scratch\nCMD ["x"]\n'),
    BuildCase("add-archive", "FROM busybox\nADD t.tgz /x\nCOPY t.tgz /y\n", {"t.tgz": packed(TREE)}),
    BuildCase("add-plain", "FROM busybox\nADD a.txt dir /x/\nADD a.gz /\n", {**TREE, "a.gz": GZ}),
    BuildCase(
        "stages",
        """
        FROM busybox AS one
        RUN mkdir /o && echo 1 > /o/f && chown -R 5:5 /o
        FROM one AS two
        RUN echo 2 > /o/g
        FROM busybox
        COPY --from=one /o /from-name
        COPY --from=1 /o/g /from-number
        COPY --from=busybox /etc/passwd /from-image
        COPY --from=two --chown=9 /o /owned/
        """,
        twice=True,
    ),
    BuildCase("target", "FROM busybox AS a\nENV A=1\nFROM a AS b\nRUN false\n", query={"target": "a"}),
    BuildCase("target-unknown", "FROM busybox AS a\n", query={"target": "x"}),
    BuildCase(
        "from-itself",
        "FROM busybox AS a\nCOPY --from=0 /x /y\n",
        newer="invalid from flag value 0: refers to current build stage",
    ),
    BuildCase(
        "from-later",
        "FROM busybox AS a\nCOPY --from=1 /x /y\nFROM busybox\n",
        query={"target": "a"},
        newer="invalid from flag value 1: stage index out of bounds",
    ),
    BuildCase(
        "arguments",
        """
        ARG BASE=busybox
        ARG TAG
        FROM ${BASE}:${TAG:-latest}
        ARG BASE
        ARG PLAIN
        ARG WITH=default
        ARG GIVEN=default
        RUN echo "$BASE-$PLAIN-$WITH-$GIVEN"
        ENV PLAIN=env KEPT=${GIVEN}
        RUN echo "$PLAIN $KEPT"
        """,
        query={"buildargs": '{"GIVEN": "g", "PLAIN": "p", "HTTP_PROXY": "http://x"}'},
        twice=True,
    ),
    BuildCase("arguments-unused", "FROM busybox\n", query={"buildargs": '{"NOPE": "1"}'}),
    BuildCase("labels", "FROM busybox\nLABEL a=1\n", query={"labels": '{"z": "$A", "b": "two words"}'}),
    BuildCase("onbuild", "FROM base\nRUN echo after\n", TREE, before=TRIGGERS),
    BuildCase("quiet", "FROM busybox\nRUN echo x\n", query={"q": 1}),
    BuildCase("quiet-fails", "FROM busybox\nRUN false\n", query={"q": 1}),
    BuildCase("rm-false", "FROM busybox\nRUN echo x > /x\nENV A=1\n", query={"rm": 0}),
    BuildCase("no-dockerfile", "", TREE, newer="Cannot locate specified Dockerfile: Dockerfile"),
    BuildCase("empty-dockerfile", "", {"Dockerfile": b""}),
    BuildCase("only-comments", "# nothing\n"),
    BuildCase("lower-case-name", "", {"dockerfile": b"FROM busybox\nENV A=1\n"}),
    BuildCase("other-name", "", {"sub/df": b"FROM busybox\nCOPY sub /s\n"}, {"dockerfile": "sub/df"}),
    BuildCase("ignored", "FROM busybox\nCOPY . /c\n", IGNORE),
    BuildCase("unknown-instruction", "FROM busybox\nNOPE x\n", newer=f"{ON}2: unknown instruction: NOPE"),
    BuildCase("no-from", "RUN x\n", newer=f"{ON}1: no build stage in current context"),
    BuildCase("bad-tag", "FROM busybox\n", query={"t": "Upper:1"}, newer=LOWERCASE.format("Upper")),
    BuildCase(
        "bad-variable",
        "FROM busybox\nENV A=${B!x}\n",
        newer='failed to process "${B!x}": unsupported modifier (!) in substitution',
    ),
    BuildCase("continuation", "FROM busybox\nRUN echo a \\\n# comment\n  b \\\n\n  c\nENV A=1 \\\n B=2\n"),
    BuildCase("escape", "# escape=`\nFROM busybox\nRUN echo a `\n b\nENV P=c:\\x\n"),
    BuildCase("network-none", "FROM busybox\nRUN ls /sys/class/net\n", query={"networkmode": "none"}),
    BuildCase("hosts", "FROM busybox\nRUN grep extra /etc/hosts\n", query={"extrahosts": "extra:1.2.3.4"}),
    BuildCase("limits", "FROM busybox\nRUN ulimit -n; df -k /dev/shm | tail -n1 | awk '{print $2}'\n",
              query={"ulimits": '[{"Name":"nofile","Soft":77,"Hard":88}]', "shmsize": 2097152}),
    BuildCase("bad-memory", "FROM busybox\nRUN true\n", query={"memory": 1, "forcerm": 1}),
    BuildCase("bad-network", "FROM busybox\nRUN true\n", query={"networkmode": "nope", "forcerm": 1}),
    BuildCase("bad-hosts", "FROM busybox\nRUN true\n", query={"extrahosts": "bad", "forcerm": 1}),
    BuildCase("bad-platform", "FROM busybox\n", query={"platform": "a/b/c/d"}),
    BuildCase("bad-isolation", "FROM busybox\n", query={"isolation": "hyperv"}),
    BuildCase("bad-version", "FROM busybox\n", query={"version": "3"}),
    BuildCase("bad-remote", "FROM busybox\n", query={"remote": "foo"}),
    BuildCase("no-web-server", "FROM busybox\n", query={"remote": "http://127.0.0.1:1/x"}),
    BuildCase("dockerfile-outside", "FROM busybox\n", query={"dockerfile": "../Dockerfile"}),
    BuildCase("dockerfile-missing", "FROM busybox\n", query={"dockerfile": "nope"}),
    BuildCase("security-options", "FROM busybox\n", query={"securityopt": '["x"]'}),
    BuildCase("no-tag", "FROM busybox\nENV A=1\n", query={"t": ["", "built:1"]}),
    BuildCase("unknown-user", "FROM busybox\nUSER nope\nRUN true\n", query={"forcerm": 1}),
    BuildCase("workdir-on-file", "FROM busybox\nWORKDIR /etc/passwd\n"),
    BuildCase("workdir-of-nothing", "FROM busybox\nWORKDIR $NOPE\n"),
    BuildCase("base-of-nothing", "FROM $X\n"),
    BuildCase("nothing-at-all", "FROM scratch\n"),
    BuildCase("copy-a-url", "FROM busybox\nCOPY http://127.0.0.1:1/x /x\n"),
    BuildCase("add-an-unreachable-url", "FROM busybox\nADD http://127.0.0.1:1/x /x\n"),
    BuildCase("expose-addresses", "FROM busybox\nEXPOSE 1.2.3.4:80:90 ${X:-7-9/udp}\n"),
    BuildCase("empty-commands", "FROM busybox\nCMD []\nENTRYPOINT []\nCMD\n"),
    BuildCase("onto-what-is-mounted", "FROM busybox\nCOPY a.txt /proc/x\nCOPY a.txt /dev/x\n", TREE),
    BuildCase("squash", "FROM busybox\n", query={"squash": 1}),
]  # fmt: skip
