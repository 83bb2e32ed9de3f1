"""The same builds by dockerd's classic builder and by longshored: the same output, the same images."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

import pytest
from differential.builds import CASES, BuildCase, archive, build, error, image, shown
from harness import Client, Daemon, Dockerd, Longshored


@pytest.fixture
def pair(oracle: Dockerd, daemon: Longshored) -> Iterator[tuple[Daemon, Daemon]]:
    both: tuple[Daemon, Daemon] = (oracle, daemon)
    before = [_images(each) for each in both]
    yield both
    for each, kept in zip(both, before, strict=True):
        each.reset()
        _remove_images(each, kept)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_same_build(pair: tuple[Daemon, Daemon], case: BuildCase) -> None:
    dockerfile = textwrap.dedent(case.dockerfile)
    body = archive(dockerfile, case.files)
    query = {"t": "built:1", **case.query}
    if case.before:
        for daemon in pair:
            build(daemon, archive(case.before, case.files), t="base").expect(200)
    for _ in range(1 + case.twice):
        theirs, ours = (build(daemon, body, **query) for daemon in pair)
        if error(theirs) and (theirs.status != 200 or case.newer):
            assert (ours.status == 200) == (theirs.status == 200)
            assert error(ours).casefold() == (case.newer or error(theirs)).casefold()
            return
        assert shown(ours) == shown(theirs)
    if b'"error"' not in ours.body:
        name = query["t"][-1] if isinstance(query["t"], list) else query["t"]
        wanted, got = (image(daemon, name) for daemon in pair)
        assert got == wanted


def _images(daemon: Daemon) -> set[str]:
    return {each["Id"] for each in Client(daemon.socket, "1.41").get("/images/json", all=1).json}


def _remove_images(daemon: Daemon, kept: set[str]) -> None:
    """Images have to go before those that they were made of."""
    client = Client(daemon.socket, "1.41")
    while left := _images(daemon) - kept:
        for id in left:
            client.delete(f"/images/{id}", force=1)
        if _images(daemon) - kept == left:
            raise AssertionError(f"images of {daemon.kind} can not be removed: {left}")
