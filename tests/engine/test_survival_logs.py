"""A container that counts as fast as it can, a daemon that is killed while it reads: every number, once."""

from __future__ import annotations

import random
import time

import pytest
from engine.survival import api_of, eventually, left_over, run, state
from harness import Longshored
from harness.http import split_frames

KILLS = 4
COUNT = "i=0; while [ ! -e /enough ]; do echo line $i; i=$((i+1)); done; echo enough $i"


@pytest.mark.parametrize(
    ("driver", "options"),
    [("json-file", {}), ("json-file", {"max-size": "2m", "max-file": "99"}), ("local", {"max-file": "99"})],
    ids=("json-file", "rotated", "local"),
)
def test_every_number_once(fresh_daemon: Longshored, driver: str, options: dict[str, str]) -> None:
    api = api_of(fresh_daemon)
    log = {"LogConfig": {"Type": driver, "Config": options}, "NetworkMode": "none"}
    id = run(api, "counter", "sh", "-c", COUNT, host=log)
    for _ in range(KILLS):
        time.sleep(random.random() / 5)  # Whenever it is: that is the point.
        fresh_daemon.kill()
        fresh_daemon.start()
    made = api.post(f"/containers/{id}/exec", {"Cmd": ["touch", "/enough"]}).expect(201).json["Id"]
    api.post(f"/exec/{made}/start", {"Detach": True}).expect(200)
    eventually(lambda: not state(api, id)["Running"], 60)
    answer = api.get(f"/containers/{id}/logs", stdout=1, stderr=1).expect(200)
    *lines, last, rest = _payload(answer.body).split(b"\n")
    assert lines == [b"line %d" % number for number in range(len(lines))]
    assert (last, rest) == (b"enough %d" % len(lines), b"")
    api.delete(f"/containers/{id}").expect(204)
    assert not left_over(fresh_daemon)


def _payload(body: bytes) -> bytes:
    """Frames of whole lines; taken apart by hand, there are too many for the plain way."""
    parts, at = [], 0
    view = memoryview(body)
    while at < len(view):
        end = at + 8 + int.from_bytes(view[at + 4 : at + 8], "big")
        parts.append(bytes(view[at + 8 : end]))
        at = end
    assert split_frames(body[: 8 + len(parts[0])])[0][0] == 1
    return b"".join(parts)
