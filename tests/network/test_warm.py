"""Network namespaces that are made ahead."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from network.machines import Machine, add, die

from longshore.linux.namespaces import is_network_namespace


def namespaces(host: Machine) -> set[str]:
    return {path.name for path in (host.root / "run" / "netns").iterdir() if is_network_namespace(path)}


async def count(host: Machine, number: int) -> set[str]:
    return await asyncio.to_thread(wait_for, host, number)


def wait_for(host: Machine, number: int) -> set[str]:
    deadline = time.monotonic() + 10
    while len(found := namespaces(host)) != number:
        assert time.monotonic() < deadline, found
        time.sleep(0.01)
    return found


def test_warm_namespaces_are_used_made_up_for_and_never_left(host: Machine) -> None:
    async def run() -> None:
        controller = host.controller(warm_sandboxes=2)
        await controller.start({})
        ready = await count(host, 2)
        boxes = [(await add(controller, f"box{i}"))[0] for i in range(3)]
        keys = [Path(box.key).name for box in boxes]
        assert set(keys) >= ready and all(
            box.id.startswith(key) for box, key in zip(boxes, keys, strict=True)
        )
        await count(host, 5)
        # What nobody has used when the process dies is for the next to remove.
        await die(controller)
        again = host.controller(warm_sandboxes=0)
        await again.start({"box0": boxes[0].key})
        assert await count(host, 1) == {keys[0]}
        await again.stop(False)
        assert not list((host.root / "run" / "netns").iterdir())
        await controller._warm.close()

    asyncio.run(run())


def test_a_stop_takes_them_along(host: Machine) -> None:
    async def run() -> None:
        for warm in (0, 3):
            controller = host.controller(warm_sandboxes=warm)
            await controller.start({})
            await count(host, warm)
            await controller.stop(False)
            assert not list((host.root / "run" / "netns").iterdir())

    asyncio.run(run())
