"""Platforms, endpoints, challenges and messages: what needs no connection."""

from __future__ import annotations

import pytest

from longshore.errors import InvalidParameter, NotFound
from longshore.images.reference import parse
from longshore.images.registry.auth import parse_challenges
from longshore.images.registry.endpoints import RegistrySettings, login_domain, pull_endpoints
from longshore.images.registry.failures import RegistryError, translated
from longshore.images.registry.manifests import Descriptor, Index, select
from longshore.images.registry.metadata import source_of
from longshore.images.registry.platforms import Platform, parse_platform, rank
from longshore.images.registry.transport import _proxy
from longshore.types.registry import AuthConfig, decode_auth


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("linux/amd64", "linux/amd64"),
        ("linux/x86_64", "linux/amd64"),
        ("linux/arm64/v8", "linux/arm64/v8"),
        ("linux/arm", "linux/arm/v7"),
        ("linux/armhf", "linux/arm/v7"),
        ("linux/arm/6", "linux/arm/v6"),
        ("Linux/AArch64", "linux/arm64"),
        ("s390x", "linux/s390x"),
    ],
)
def test_platforms_are_read_as_containerd_reads_them(text: str, parsed: str) -> None:
    assert str(parse_platform(text)) == parsed


@pytest.mark.parametrize("text", ["bogus", "linux/amd64/v1/x", "linux//v7", "lin ux/amd64", ""])
def test_platforms_that_are_none(text: str) -> None:
    with pytest.raises(InvalidParameter):
        parse_platform(text)


def test_an_image_of_the_next_lower_variant_will_do() -> None:
    wanted = Platform("linux", "arm", "v7")
    assert rank(wanted, Platform("linux", "arm", "v7")) == 0
    assert rank(wanted, Platform("linux", "arm", "v6")) == 1
    assert rank(wanted, Platform("linux", "arm", "v8")) is None
    assert rank(Platform("linux", "arm64"), Platform("linux", "arm64", "v8")) == 0
    assert rank(Platform("linux", "amd64"), Platform("windows", "amd64")) is None
    assert rank(parse_platform("linux/amd64"), Platform("linux", "amd64", "v2")) is None
    assert rank(parse_platform("linux/amd64/v3"), Platform("linux", "amd64", "v2")) == 1
    assert rank(parse_platform("linux/amd64/v2"), Platform("linux", "amd64", "v1")) == 1
    assert rank(parse_platform("linux/arm/v6"), Platform("linux", "arm")) is None  # which is v7


def test_the_best_of_an_index_is_chosen_whatever_its_order() -> None:
    def entry(number: int, *platform: str) -> tuple[Descriptor, Platform]:
        return Descriptor(f"sha256:{number:064}", 1, ""), Platform(*platform)

    index = Index(
        [
            entry(1, "unknown", "unknown"),
            entry(2, "linux", "386"),
            entry(3, "linux", "arm", "v6"),
            entry(4, "linux", "amd64"),
        ]
    )
    assert select(index, Platform("linux", "amd64")).digest.endswith("4")
    assert select(index, Platform("linux", "arm", "v7")).digest.endswith("3")
    with pytest.raises(NotFound, match="no matching manifest for linux/s390x in the manifest list entries"):
        select(index, Platform("linux", "s390x"))


def test_loopback_may_be_insecure_and_others_only_if_allowed() -> None:
    settings = RegistrySettings(insecure=("192.0.2.0/24", "203.0.113.1:5000"))

    def urls(name: str) -> list[str]:
        return [endpoint.url for endpoint in pull_endpoints(parse(name), settings)]

    assert urls("127.0.0.1:5000/x") == ["https://127.0.0.1:5000", "http://127.0.0.1:5000"]
    assert urls("192.0.2.7/x") == ["https://192.0.2.7", "http://192.0.2.7"]
    assert urls("203.0.113.1:5000/x") == ["https://203.0.113.1:5000", "http://203.0.113.1:5000"]
    assert urls("203.0.113.1/x") == ["https://203.0.113.1"]
    assert pull_endpoints(parse("203.0.113.1/x"), settings)[0].verify


def test_only_docker_hub_has_mirrors() -> None:
    settings = RegistrySettings(mirrors=("http://127.0.0.1:5000/",))
    assert [each.url for each in pull_endpoints(parse("busybox"), settings)] == [
        "http://127.0.0.1:5000",
        "https://registry-1.docker.io",
    ]
    assert len(pull_endpoints(parse("203.0.113.1/x"), settings)) == 1


def test_where_to_log_in() -> None:
    assert login_domain("") == login_domain("https://index.docker.io/v1/") == "docker.io"
    assert login_domain("127.0.0.1:5000") == login_domain("http://127.0.0.1:5000/") == "127.0.0.1:5000"
    with pytest.raises(InvalidParameter):
        login_domain("https://name@host/")


def test_challenges_are_taken_apart() -> None:
    header = (
        'Bearer realm="https://a.test/token?x=1,2",service="reg",scope="repository:a:pull,push", '
        'Basic realm="b"'
    )
    bearer, basic = parse_challenges(header)
    assert bearer.scheme == "bearer"
    assert bearer.parameters["realm"] == "https://a.test/token?x=1,2"
    assert bearer.parameters["scope"] == "repository:a:pull,push"
    assert basic == ("basic", {"realm": "b"})


def test_refusals_are_told_as_docker_tells_them() -> None:
    denied = translated(
        RegistryError("DENIED", "requested access to the resource is denied"), parse("nobody/nothing:1")
    )
    assert isinstance(denied, NotFound)
    assert str(denied) == (
        "pull access denied for nobody/nothing, repository does not exist or may require 'docker login': "
        "denied: requested access to the resource is denied"
    )


def test_credentials_in_the_header() -> None:
    assert decode_auth("eyJ1c2VybmFtZSI6InUifQ==") == decode_auth("eyJ1c2VybmFtZSI6InUifQ")
    assert decode_auth("").username == ""
    assert AuthConfig(auth="dTpwOnE=").basic == ("u", "p:q")
    for bad in ("!!", "e30x", "W10="):
        with pytest.raises(InvalidParameter):
            decode_auth(bad)


def test_the_users_mark_on_a_blob_source_is_dockerds() -> None:
    """Computed by dockerd 20.10 for empty credentials."""
    digest = "sha256:75d3b07cefc46cbe97acae0c8198651c1ed6c36a927dec558b9b92707bc76c4c"
    marked = source_of(digest, "127.0.0.1:15511/theirs/big", AuthConfig())
    assert marked.HMAC == "d7464465798c7fe0902e4d571ea1f85133c1cdacee98fd052e6dab0b78d021d0"
    assert source_of(digest, "127.0.0.1:15511/theirs/big", None).HMAC == ""


def test_proxies() -> None:
    settings = {"http-proxy": "p.test:1", "https-proxy": "http://q.test:2", "no-proxy": "x.test,10.0.0.0/8"}
    assert _proxy("http", "r.test", settings) == "http://p.test:1"
    assert _proxy("https", "r.test:5000", settings) == "http://q.test:2"
    for exempt in ("x.test", "sub.x.test:1", "10.1.2.3:5000", "127.0.0.1:5000", "localhost"):
        assert _proxy("https", exempt, settings) == "", exempt
