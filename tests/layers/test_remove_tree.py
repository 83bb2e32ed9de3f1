"""Removing trees."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from longshore.layers.remove import remove_tree


def test_two_may_remove_the_same_tree(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    for number in range(300):
        (tree / f"d{number % 20}" / f"e{number}").mkdir(parents=True)
        (tree / f"d{number % 20}" / f"e{number}" / "file").touch()
    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(remove_tree, tree) for _ in range(4)]:
            done.result()
    assert not tree.exists()
