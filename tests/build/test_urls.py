"""What of a URL is shown."""

from __future__ import annotations

from base64 import b64encode

import pytest

from longshore.build.urls import authorization, redacted


@pytest.mark.parametrize(
    ("url", "shown", "sent"),
    [
        ("https://host/p?q#f", "https://host/p?q#f", None),
        ("https://me:secret@host:8/p?q#f:d", "https://xxxxx:xxxxx@host:8/p?q#f:d", "me:secret"),
        ("https://token@host/p", "https://xxxxx@host/p", "token:"),
        ("https://:p%40@host/p", "https://:xxxxx@host/p", ":p@"),
        ("https://a@b:c@host/", "https://xxxxx:xxxxx@host/", "a@b:c"),
        ("https://m%C3%A9:€@host/", "https://xxxxx:xxxxx@host/", "mé:€"),
        ("git@host:p.git", "git@host:p.git", None),
    ],
)
def test_credentials(url: str, shown: str, sent: str | None) -> None:
    assert redacted(url) == shown
    header = authorization(url).get("Authorization", "")
    assert header.removeprefix("Basic ") == (b64encode(sent.encode()).decode() if sent else "")


def test_what_is_no_url() -> None:
    assert redacted("http://[x/") == "http://[x/"
