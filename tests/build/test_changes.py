"""Instructions that change a configuration."""

from __future__ import annotations

from copy import deepcopy

import pytest

from longshore.build.changes import apply_changes
from longshore.errors import InvalidParameter
from longshore.types.container import Config


def test_changes_read_as_a_dockerfile_does() -> None:
    before = Config(Env=["A=1", "B=2"], Cmd=["old"], ExposedPorts={"1/tcp": {}})
    kept = deepcopy(before)
    after = apply_changes(
        before,
        [
            'ENV A="x y" C=$B',
            "LABEL \\\n  k=${A}\nUSER me",
            'ENTRYPOINT ["e"]',
            "EXPOSE $B/udp",
            "WORKDIR w",
            "WORKDIR x",
            "STOPSIGNAL 9",
            "# nothing",
            "ONBUILD RUN true",
        ],
    )
    assert before == kept
    assert after.Env == ["A=x y", "B=2", "C=2"]
    assert (after.Labels, after.User, after.WorkingDir) == ({"k": "x y"}, "me", "/w/x")
    assert (after.Entrypoint, after.Cmd) == (["e"], None)
    assert after.ExposedPorts == {"1/tcp": {}, "2/udp": {}}
    assert (after.StopSignal, after.OnBuild) == ("9", ["RUN true"])
    assert apply_changes(before, []) == before


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ("RUN rm -rf /", "run is not a valid change command"),
        ('SHELL ["x"]', "shell is not a valid change command"),
        ("nope x", "nope is not a valid change command"),
        ("ENV A", "ENV must have two arguments"),
        ("USER", "USER requires exactly one argument"),
        ("", "file with no instructions"),
    ],
)
def test_changes_that_are_none(change: str, problem: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        apply_changes(Config(), [change])
    assert caught.value.message == problem
