"""Who we are to a registry, and whom we take it for: tokens, passwords, certificates."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from harness.certificates import make_authority
from harness.registry import FakeRegistry, Registry

from longshore.errors import EngineError, InvalidParameter, Unauthorized
from longshore.images.registry.client import RepositoryClient
from longshore.images.registry.endpoints import Endpoint, RegistrySettings
from longshore.images.registry.failures import RegistryError, Unreachable
from longshore.images.registry.lookups import log_in
from longshore.types.registry import AuthConfig

SETTINGS = RegistrySettings(retry_delay=0.01)


class TokenServer:
    """Makes a fake registry ask for tokens, and gives them out for `secret` or the refresh token."""

    def __init__(self, fake: FakeRegistry) -> None:
        self.fake = fake
        self.asked: list[dict[str, list[str]]] = []
        self.valid = "token-1"
        fake.behave = self.behave

    def behave(self, handler: Any) -> bool:
        url = urlsplit(handler.path)
        if url.path == "/token":
            self._give(handler, parse_qs(handler.body.decode() or url.query))
            return True
        if handler.headers.get("Authorization") == f"Bearer {self.valid}":
            return False
        realm = f"http://{self.fake.address}/token"
        challenge = f'Bearer realm="{realm}",service="fake"'
        handler.answer(401, b"{}", WWW_Authenticate=challenge)
        return True

    def _give(self, handler: Any, query: dict[str, list[str]]) -> None:
        self.asked.append(query)
        if handler.command == "POST":
            good = query["refresh_token"] == ["refresh"]
            handler.answer(200 if good else 401, json.dumps({"access_token": self.valid}).encode())
            return
        basic = "Basic " + base64.b64encode(b"user:secret").decode()
        if query.get("account") and handler.headers.get("Authorization") != basic:
            handler.answer(401, json.dumps({"details": "incorrect username or password"}).encode())
            return
        given = {"token": self.valid, "expires_in": 300, "refresh_token": "refresh"}
        handler.answer(200, json.dumps(given).encode())


def client(fake: FakeRegistry, auth: AuthConfig | None = None, path: str = "app") -> RepositoryClient:
    return RepositoryClient(Endpoint(f"http://{fake.address}"), path, SETTINGS, auth or AuthConfig())


def test_a_token_is_asked_for_once_with_its_scope(fake: FakeRegistry) -> None:
    fake.image("app:1", [])
    server = TokenServer(fake)
    repository = client(fake, AuthConfig("user", "secret"))
    repository.ping()
    for _ in range(3):
        repository.manifest("1")
    assert len(server.asked) == 1
    assert server.asked[0]["scope"] == ["repository:app:pull"]
    assert server.asked[0]["service"] == ["fake"]
    assert server.asked[0]["account"] == ["user"]


def test_an_expired_token_is_renewed(fake: FakeRegistry) -> None:
    fake.image("app:1", [])
    server = TokenServer(fake)
    repository = client(fake)
    repository.ping()
    repository.manifest("1")
    server.valid = "token-2"
    repository.manifest("1")
    assert len(server.asked) == 2


def test_a_wrong_password_is_told_in_the_token_servers_words(fake: FakeRegistry) -> None:
    TokenServer(fake)
    repository = client(fake, AuthConfig("user", "wrong"))
    repository.ping()
    with pytest.raises(EngineError, match="unauthorized: incorrect username or password"):
        repository.manifest("1")


def test_logging_in_gives_an_identity_token(fake: FakeRegistry) -> None:
    TokenServer(fake)

    class Service:
        @staticmethod
        def settings() -> RegistrySettings:
            return SETTINGS

    service: Any = Service()
    auth = AuthConfig("user", "secret", serveraddress=fake.address)
    assert asyncio.run(log_in(service, auth)) == "refresh"
    with pytest.raises(Unauthorized, match="incorrect username or password"):
        asyncio.run(log_in(service, AuthConfig("user", "wrong", serveraddress=fake.address)))


def test_a_registry_token_goes_as_it_is(fake: FakeRegistry) -> None:
    fake.image("app:1", [])
    server = TokenServer(fake)
    repository = client(fake, AuthConfig(registrytoken="token-1"))
    repository.ping()
    repository.manifest("1")
    assert server.asked == []


def test_an_identity_token_is_exchanged_by_oauth(fake: FakeRegistry) -> None:
    fake.image("app:1", [])
    server = TokenServer(fake)
    repository = client(fake, AuthConfig("<token>", "ignored", identitytoken="refresh"))
    repository.ping()
    repository.manifest("1")
    assert server.asked == [
        {
            "grant_type": ["refresh_token"],
            "service": ["fake"],
            "client_id": ["docker"],
            "refresh_token": ["refresh"],
            "scope": ["repository:app:pull"],
        }
    ]
    assert "Authorization" not in next(headers for verb, _, headers in fake.requests if verb == "POST")
    other = client(fake, AuthConfig("<token>", identitytoken="another"))
    other.ping()
    with pytest.raises(EngineError, match="unauthorized: authentication required"):
        other.manifest("1")


def test_a_push_sends_no_credentials_to_where_uploads_go(fake: FakeRegistry) -> None:
    elsewhere = FakeRegistry()
    elsewhere.uploads["/here"] = b""
    TokenServer(fake)
    token = fake.behave

    def behave(handler: Any) -> bool:
        if token(handler):
            return True
        if handler.command != "POST":
            return False
        handler.answer(202, b"", Location=f"http://{elsewhere.address}/here")
        return True

    fake.behave = behave
    try:
        repository = client(fake, AuthConfig("user", "secret"))
        repository.ping()
        url = repository.upload(repository.start_upload(), iter([b"content"]))
        repository.finish_upload(url, f"sha256:{hashlib.sha256(b'content').hexdigest()}")
        assert [verb for verb, _, _ in elsewhere.requests] == ["PATCH", "PUT"]
        assert not any("Authorization" in headers for _, _, headers in elsewhere.requests)
        assert list(elsewhere.blobs.values()) == [b"content"]
    finally:
        elsewhere.close()


def test_a_proxy_is_told_who_we_are_and_the_registry_behind_it_is_not(fake: FakeRegistry) -> None:
    """`fake` is the proxy here: what it is asked for is an absolute URL."""
    asked: list[tuple[str, str]] = []

    def proxy(handler: Any) -> bool:
        asked.append((handler.path, handler.headers.get("Proxy-Authorization", "")))
        handler.answer(200, b"{}")
        return True

    fake.behave = proxy
    proxies = {"http-proxy": f"http://user:p%40ss@{fake.address}"}
    settings = RegistrySettings(retry_delay=0.01, proxies=proxies)
    RepositoryClient(Endpoint("http://registry.invalid:5000"), "app", settings, AuthConfig()).ping()
    given = base64.b64encode(b"user:p@ss").decode()
    assert asked == [("http://registry.invalid:5000/v2/", f"Basic {given}")]
    settings = RegistrySettings(proxies={"http-proxy": "http://user:secret@127.0.0.1:1"})
    with pytest.raises(Unreachable) as failure:
        RepositoryClient(Endpoint("http://registry.invalid:5000"), "app", settings, AuthConfig()).ping()
    assert "secret" not in str(failure.value)


def test_insufficient_scope_is_access_denied(fake: FakeRegistry) -> None:
    def deny(handler: Any) -> bool:
        if handler.path == "/v2/":
            return False
        challenge = 'Basic realm="x"'
        scope = 'Bearer realm="x",error="insufficient_scope"'
        handler.answer(403, b"{}", WWW_Authenticate=f"{challenge}, {scope}")
        return True

    fake.behave = deny
    repository = client(fake)
    repository.ping()
    with pytest.raises(RegistryError, match="denied: requested access to the resource is denied"):
        repository.manifest("1")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with ca.crt, and server.crt, server.key for 127.0.0.1."""
    return make_authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def secure(authority: Path) -> Iterator[Registry]:
    if Registry.missing():
        pytest.skip("docker-registry is not installed")
    registry = Registry(certificate=(authority / "server.crt", authority / "server.key"))
    yield registry
    registry.close()


def test_a_registry_has_to_prove_who_it_is(secure: Registry, authority: Path, tmp_path: Path) -> None:
    def ping(verify: bool) -> None:
        settings = RegistrySettings(certificates=tmp_path)
        RepositoryClient(Endpoint(f"https://{secure.address}", verify), "x", settings, AuthConfig()).ping()

    with pytest.raises(Unreachable) as failure:
        ping(verify=True)
    assert str(failure.value) == (
        f'Get "https://{secure.address}/v2/": tls: failed to verify certificate: '
        "x509: certificate signed by unknown authority"
    )
    ping(verify=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CERT_FILE", str(authority / "ca.crt"))  # what the system trusts
        ping(verify=True)
    directory = tmp_path / secure.address
    directory.mkdir()
    (directory / "our.crt").write_bytes((authority / "ca.crt").read_bytes())
    ping(verify=True)
    (directory / "client.cert").write_bytes((authority / "server.crt").read_bytes())
    with pytest.raises(
        InvalidParameter, match=r"missing key client\.key for client certificate client\.cert"
    ):
        ping(verify=True)
    (directory / "client.key").write_bytes((authority / "server.key").read_bytes())
    ping(verify=True)


@pytest.fixture
def token_server(authority: Path) -> Iterator[FakeRegistry]:
    """A server of tokens, beside the registry, that speaks to those with a certificate of the authority."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(authority / "server.crt", authority / "server.key")
    tls.load_verify_locations(authority / "ca.crt")
    tls.verify_mode = ssl.CERT_REQUIRED
    served = FakeRegistry(tls)
    yield served
    served.close()


@pytest.mark.parametrize("verify", [True, False])
def test_token_servers_are_trusted_as_their_registry_is(
    fake: FakeRegistry, token_server: FakeRegistry, authority: Path, tmp_path: Path, verify: bool
) -> None:
    fake.image("app:1", [])

    def behave(handler: Any) -> bool:
        if handler.headers.get("Authorization") == "Bearer given":
            return False
        realm = f"https://{token_server.address}/token"
        handler.answer(401, b"{}", WWW_Authenticate=f'Bearer realm="{realm}"')
        return True

    def give(handler: Any) -> bool:
        handler.answer(200, b'{"token":"given"}')
        return True

    fake.behave, token_server.behave = behave, give
    directory = tmp_path / fake.address
    directory.mkdir()

    def manifest() -> None:
        settings = RegistrySettings(retry_delay=0.01, certificates=tmp_path)
        endpoint = Endpoint(f"http://{fake.address}", verify)
        repository = RepositoryClient(endpoint, "app", settings, AuthConfig())
        repository.ping()
        repository.manifest("1")

    with pytest.raises(EngineError, match="signed by unknown authority" if verify else "tls: |EOF|reset"):
        manifest()
    for name, source in (("ca.crt", "ca.crt"), ("me.cert", "server.crt"), ("me.key", "server.key")):
        (directory / name).write_bytes((authority / source).read_bytes())
    manifest()


def test_plain_http_is_not_https(fake: FakeRegistry) -> None:
    repository = RepositoryClient(Endpoint(f"https://{fake.address}", False), "x", SETTINGS, AuthConfig())
    with pytest.raises(Unreachable) as failure:
        repository.ping()
    assert str(failure.value) == (
        f'Get "https://{fake.address}/v2/": http: server gave HTTP response to HTTPS client'
    )
