"""Proving who we are to a registry: nothing, a password, or a token that another server gives out for it."""

from __future__ import annotations

import base64
import re
import threading
import time
from typing import NamedTuple
from urllib.parse import urlencode, urlsplit

import msgspec

from longshore.errors import Unauthorized
from longshore.images.registry.failures import Refused, refusal
from longshore.images.registry.transport import Transport, named_failure, read_whole
from longshore.types.registry import AuthConfig

CLIENT_ID = "docker"
"""What token servers know us as; some give tokens to clients they know only."""
_SHORTEST_LIFE = 60.0
_LONGEST_ANSWER = 1 << 20
_PARAMETER = re.compile(r'([A-Za-z_]+)=(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')


class Challenge(NamedTuple):
    """One WWW-Authenticate header: the scheme in small letters, and its parameters."""

    scheme: str
    parameters: dict[str, str]


class NoCredentials(Unauthorized):
    """The registry wants a password, and the user gave none."""


class Authorizer:
    """The Authorization header for requests to one registry. Blocking; use it in threads."""

    def __init__(self, transport: Transport, auth: AuthConfig, scopes: tuple[str, ...]) -> None:
        """`scopes` is what a token shall allow: `repository:library/busybox:pull`."""
        self._transport = transport
        self._auth = auth
        self._scopes = scopes
        self._challenges: list[Challenge] = []
        self._tokens: dict[tuple[str, ...], tuple[str, float]] = {}
        self._lock = threading.Lock()
        self.identity_token = ""
        """A refresh token that the server gave for the password, once a token was asked for."""

    def challenged(self, headers: list[str]) -> None:
        """The registry said what it wants."""
        self._challenges = [challenge for text in headers for challenge in parse_challenges(text)]

    def header(self, *more_scopes: str) -> dict[str, str]:
        """What to send along. Raises NoCredentials, or the token server's refusal."""
        for challenge in self._challenges:
            if challenge.scheme == "bearer":
                return {"Authorization": f"Bearer {self._token(challenge, more_scopes)}"}
        for challenge in self._challenges:
            if challenge.scheme == "basic":
                name, password = self._auth.basic
                if not name:
                    raise NoCredentials("no basic auth credentials")
                return {"Authorization": f"Basic {_basic(name, password)}"}
        return {}

    def forget(self) -> None:
        """Ask for tokens anew: the ones we have are refused."""
        with self._lock:
            self._tokens.clear()

    def _token(self, challenge: Challenge, more_scopes: tuple[str, ...]) -> str:
        if self._auth.registrytoken:
            _check_token(self._auth.registrytoken)
            return self._auth.registrytoken
        scopes = (*self._scopes, *more_scopes)
        with self._lock:
            token, until = self._tokens.get(scopes, ("", 0.0))
            if time.monotonic() >= until:
                token, life = self._fetch(challenge.parameters, scopes)
                self._tokens[scopes] = token, time.monotonic() + max(life, _SHORTEST_LIFE) * 0.9
            return token

    def _fetch(self, parameters: dict[str, str], scopes: tuple[str, ...]) -> tuple[str, float]:
        realm = parameters.get("realm", "")
        target = urlsplit(realm)
        if target.scheme not in ("http", "https") or not target.hostname:
            raise Refused("invalid realm in the registry's challenge")
        if self._auth.identitytoken:
            given = self._post(realm, parameters, scopes)
        else:
            given = self._get(realm, parameters, scopes)
        token = given.get("token") or given.get("access_token")
        if not isinstance(token, str) or not token:
            raise Refused("authorization server did not include a token in the response")
        _check_token(token)
        if not self._auth.identitytoken and isinstance(given.get("refresh_token"), str):
            self.identity_token = str(given["refresh_token"])
        life = given.get("expires_in")
        return token, float(life) if isinstance(life, int | float) and life < 1 << 31 else _SHORTEST_LIFE

    def _get(self, realm: str, parameters: dict[str, str], scopes: tuple[str, ...]) -> dict[str, object]:
        """The token server's older protocol, with a password or without."""
        name, password = self._auth.basic
        query: list[tuple[str, str]] = []
        if service := parameters.get("service"):
            query.append(("service", service))
        query += [("scope", scope) for scope in scopes]
        if name:
            query += [("account", name), ("client_id", CLIENT_ID), ("offline_token", "true")]
        headers = {"Authorization": f"Basic {_basic(name, password)}"} if name else {}
        url = realm + ("&" if "?" in realm else "?") + urlencode(query)
        return self._answer("GET", url, headers, None)

    def _post(self, realm: str, parameters: dict[str, str], scopes: tuple[str, ...]) -> dict[str, object]:
        """OAuth 2: a token for the refresh token."""
        form = {
            "grant_type": "refresh_token",
            "service": parameters.get("service", ""),
            "client_id": CLIENT_ID,
            "refresh_token": self._auth.identitytoken,
            "scope": " ".join(scopes),
        }
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        return self._answer("POST", realm, headers, urlencode(form).encode())

    def _answer(
        self, method: str, url: str, headers: dict[str, str], body: bytes | None
    ) -> dict[str, object]:
        answer = self._transport.request(method, url, headers, body, read_timeout=15)
        try:
            with named_failure(method, url.partition("?")[0]):
                content = read_whole(answer, _LONGEST_ANSWER)
        finally:
            answer.close()
        if answer.status >= 400:
            raise refusal(answer.status, answer.reason or "", answer.headers, content)
        try:
            return msgspec.json.decode(content, type=dict[str, object])
        except ValueError as exc:
            raise Refused(f"unable to decode token response: {exc}") from None


def parse_challenges(header: str) -> list[Challenge]:
    """The challenges in one WWW-Authenticate header (RFC 9110, 11.6.1); unknown schemes too."""
    found = []
    starts = list(re.finditer(r"(?:^|,\s*)([A-Za-z]+)\s+(?=[A-Za-z_]+=)", header))
    for index, start in enumerate(starts):
        end = starts[index + 1].start() if index + 1 < len(starts) else len(header)
        parameters = {
            match[1].lower(): match[2].replace('\\"', '"') if match[2] is not None else match[3]
            for match in _PARAMETER.finditer(header, start.end(), end)
        }
        found.append(Challenge(start[1].lower(), parameters))
    return found


def _check_token(token: str) -> None:
    """What is no token must not become part of a request, nor of the message that says why."""
    if not re.fullmatch(r"[\x21-\x7e]+", token):
        raise Refused("the registry's token has characters that no token has")


def _basic(name: str, password: str) -> str:
    return base64.b64encode(f"{name}:{password}".encode()).decode()
