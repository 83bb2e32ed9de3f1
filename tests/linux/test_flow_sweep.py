"""Several who have flows forgotten at once: none is told that it was done when it was not."""

from __future__ import annotations

import threading
from collections.abc import Collection

import pytest

from longshore.linux import conntrack


def test_whoever_another_has_failed_for_tries_itself(root: None, monkeypatch: pytest.MonkeyPatch) -> None:
    walks: list[set[str]] = []
    walking, both_wait = threading.Event(), threading.Event()

    def walk(netfilter: object, addresses: Collection[str]) -> int:
        walks.append(set(addresses))
        if len(walks) == 1:
            walking.set()
            assert both_wait.wait(60)
        if len(walks) == 2:
            raise OSError("no memory")
        return 0

    monkeypatch.setattr(conntrack, "forget_flows_of", walk)
    sweep = conntrack.FlowSweep()
    told: dict[str, str] = {}

    def forget(address: str) -> None:
        try:
            sweep.forget([address])
            told[address] = "done"
        except OSError as exc:
            told[address] = str(exc)

    threads = [threading.Thread(target=forget, args=(f"192.0.2.{number}",)) for number in (1, 2, 3)]
    threads[0].start()
    assert walking.wait(60)
    for thread in threads[1:]:
        thread.start()
    while not {"192.0.2.2", "192.0.2.3"} <= sweep._waiting:
        threading.Event().wait(0.01)
    both_wait.set()
    for thread in threads:
        thread.join()
    # The second walk was for both, and failed; who did not make it made the third.
    assert walks == [{"192.0.2.1"}, {"192.0.2.2", "192.0.2.3"}, {"192.0.2.2", "192.0.2.3"}]
    assert sorted(told.values()) == ["done", "done", "no memory"]
