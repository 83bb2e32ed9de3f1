"""Names, as Docker reads them."""

from __future__ import annotations

from pathlib import Path

import pytest

from longshore.errors import Conflict, InvalidParameter, NotFound
from longshore.images.reference import parse, parse_any, with_tag
from longshore.images.refstore import ReferenceStore

DIGEST = "sha256:" + "ab" * 32


@pytest.mark.parametrize(
    ("text", "full", "familiar"),
    [
        ("busybox", "docker.io/library/busybox", "busybox"),
        ("docker.io/busybox:1", "docker.io/library/busybox:1", "busybox:1"),
        ("index.docker.io/library/busybox", "docker.io/library/busybox", "busybox"),
        ("user/repo:v1", "docker.io/user/repo:v1", "user/repo:v1"),
        ("localhost/repo", "localhost/repo", "localhost/repo"),
        ("localhost:5000/a/b:t", "localhost:5000/a/b:t", "localhost:5000/a/b:t"),
        ("reg.example/x__y-z@" + DIGEST, "reg.example/x__y-z@" + DIGEST, "reg.example/x__y-z@" + DIGEST),
        ("[::1]:5000/x", "[::1]:5000/x", "[::1]:5000/x"),
        ("Registry/x", "Registry/x", "Registry/x"),
        ("library/a/b", "docker.io/library/a/b", "library/a/b"),
    ],
)
def test_normalisation(text: str, full: str, familiar: str) -> None:
    assert (str(parse(text)), parse(text).familiar) == (full, familiar)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "invalid reference format"),
        ("a:b:c", "invalid reference format"),
        ("-a", "invalid reference format"),
        ("a..b", "invalid reference format"),
        ("a/../b", "invalid reference format"),
        ("x:" + "t" * 129, "invalid reference format"),
        ("Upper", "invalid reference format: repository name (library/Upper) must be lowercase"),
        ("a" * 64, f"invalid repository name ({'a' * 64}), cannot specify 64-byte hexadecimal strings"),
        ("x" * 300, "repository name must not be more than 255 characters"),
    ],
)
def test_what_is_refused(text: str, message: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        parse(text)
    assert caught.value.message == message


def test_ids_are_no_names() -> None:
    assert parse_any("ab" * 32) == DIGEST
    assert parse_any(DIGEST) == DIGEST


def test_store_survives_and_resolves(tmp_path: Path) -> None:
    path = tmp_path / "repositories.json"
    store = ReferenceStore(path)
    one, two = "sha256:" + "1" * 64, "sha256:" + "2" * 64
    store.add_tag(parse("busybox"), one)
    store.add_digest(parse("busybox@" + DIGEST), one)
    store.add_tag(with_tag(parse("busybox"), "old"), two)
    with pytest.raises(Conflict, match="Tag busybox:latest is already set"):
        store.add_tag(parse("busybox"), two, force=False)
    again = ReferenceStore(path)
    assert [each.familiar for each in again.references(one)] == ["busybox:latest", f"busybox@{DIGEST}"]
    assert again.resolve(parse("docker.io/library/busybox")) == one
    assert again.resolve(parse("busybox:old@" + DIGEST)) == one
    assert again.delete(parse("busybox"))
    assert not again.delete(parse("busybox"))
    with pytest.raises(NotFound):
        again.resolve(parse("busybox"))
