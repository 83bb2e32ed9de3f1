"""The waterfall, drawn from traces made by hand."""

from __future__ import annotations

import pytest

from longshore.cli.waterfall import draw
from longshore.tracing import Span, Trace

MS = 1_000_000


def trace(*spans: Span, error: str = "") -> Trace:
    return Trace("start", "web", 1_700_000_000_000_000_000, list(spans), error)


START = Span(0, None, "start", 0, 80 * MS)


def columns_of(line: str) -> set[int]:
    """Where a line's bar is."""
    return {number for number, character in enumerate(line) if character in "▏▎▍▌▋▊▉█▐"}


def test_children_are_indented_below_their_parent_in_the_order_they_began() -> None:
    lines = draw(
        trace(START, Span(1, 0, "late", 40 * MS, MS), Span(2, 0, "early", 0, MS), Span(3, 2, "deep", 0, MS))
    )
    assert [line.split()[0] for line in lines[1:]] == ["start", "early", "deep", "late"]
    assert lines[3].startswith("    deep")


def test_steps_beside_each_other_overlap_and_others_do_not() -> None:
    _, _, one, two, three = draw(
        trace(
            START,
            Span(1, 0, "a", 0, 40 * MS),
            Span(2, 0, "b", 20 * MS, 20 * MS),
            Span(3, 0, "c", 60 * MS, 20 * MS),
        )
    )
    assert columns_of(one) & columns_of(two)
    assert not columns_of(one) & columns_of(three)
    assert max(columns_of(three)) > max(columns_of(two))


def test_a_bar_is_as_long_as_its_share_of_the_whole() -> None:
    _, whole, half = draw(trace(START, Span(1, 0, "half", 40 * MS, 40 * MS)), width=100)
    assert len(columns_of(half)) == pytest.approx(len(columns_of(whole)) / 2, abs=1)


@pytest.mark.parametrize("width", [50, 61, 80, 200])
@pytest.mark.parametrize("start", [0, 1, 37, 79])
def test_no_line_is_wider_than_the_terminal(width: int, start: int) -> None:
    spans = [START, Span(1, 0, "n" * 90, start * MS, 1), Span(2, 1, "x", start * MS, None, "e" * 300)]
    assert all(len(line) <= width for line in draw(trace(*spans), width))


def test_an_error_is_shown_where_it_happened_and_only_there() -> None:
    spans = [Span(0, None, "start", 0, 80 * MS, "boom"), Span(1, 0, "mount", 0, MS, "boom")]
    text = "\n".join(draw(trace(*spans, error="boom")))
    assert text.count("boom") == 1
    assert "\x1b" not in text


def test_failures_are_red_in_a_terminal() -> None:
    lines = draw(trace(Span(0, None, "start", 0, MS, "boom")), colour=True)
    assert lines[1].startswith("\x1b[31m")


def test_an_error_cannot_write_to_the_terminal() -> None:
    lines = draw(trace(Span(0, None, "start", 0, MS, "a\x1b]0;title\x07b\nc")))
    assert "\x1b" not in "".join(lines)
    assert len(lines) == 3


def test_a_step_that_still_runs_is_unfinished() -> None:
    assert "unfinished" in draw(trace(START, Span(1, 0, "wait", 10 * MS, None)))[2]
