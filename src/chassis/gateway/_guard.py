"""Who may pass: one way of showing who one is, and what a route asks."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Protocol

import httpx2

from chassis.auth import JWKS, APIKeys, AuthError, KeysUnavailable, Principal, TokenVerifier
from chassis.core import ConfigError, Upstreams
from chassis.gateway._options import KeyAuth, RouteOptions, TokenAuth
from chassis.gateway._refusal import Refusal, retry_after
from chassis.gateway._request import Inbound
from chassis.gateway._upstream import outgoing_request

_LARGEST_KEY_SET = 1024 * 1024
_SERVICE_URL = re.compile(r"http://([a-z0-9][a-z0-9-]{0,62})(/\S*)")


class Authenticator(Protocol):
    """One way of showing who one is."""

    def credential(self, request: Inbound) -> str | None:
        """What the request shows; None if nothing of this kind.

        :raises AuthError: it shows more than one.
        """

    async def verify(self, credential: str) -> Principal:
        """Who that is."""
        ...

    def challenge(self) -> str:
        """The ``WWW-Authenticate`` value that asks for it."""
        ...


class BearerTokens:
    """``Authorization: Bearer`` with a JWT."""

    def __init__(self, verifier: TokenVerifier) -> None:
        self._verifier = verifier

    def credential(self, request: Inbound) -> str | None:
        values = request.values(b"authorization")
        if len(values) > 1:
            raise self._verifier.refusal("the request has several Authorization headers")
        scheme, _, token = values[0].decode("latin-1").partition(" ") if values else ("", "", "")
        return token.strip() if scheme.lower() == "bearer" else None

    async def verify(self, credential: str) -> Principal:
        return await self._verifier.verify(credential)

    def challenge(self) -> str:
        return self._verifier.challenge()


class HeaderKeys:
    """An API key in a header."""

    def __init__(self, keys: APIKeys) -> None:
        self._keys = keys
        self._header = keys.header.lower().encode()

    def credential(self, request: Inbound) -> str | None:
        values = request.values(self._header)
        if len(values) > 1:
            raise AuthError("the request has several API keys", challenge=self.challenge())
        return values[0].decode("latin-1") if values else None

    async def verify(self, credential: str) -> Principal:
        return self._keys.verify(credential)

    def challenge(self) -> str:
        return self._keys.challenge()


def authenticator(
    name: str, options: TokenAuth | KeyAuth, upstreams: Upstreams, directory: Path, origin: str
) -> Authenticator:
    """What ``[auth.<name>]`` describes.

    :param directory: what relative file names count from.
    :raises ConfigError: a file cannot be used.
    """
    try:
        if isinstance(options, TokenAuth):
            return BearerTokens(
                TokenVerifier(_key_set(name, options, upstreams, directory), options, realm=name)
            )
        if options.api_keys_file is not None:
            return HeaderKeys(
                APIKeys.from_file(directory / options.api_keys_file, header=options.header, realm=name)
            )
        return HeaderKeys(APIKeys(options.api_keys, header=options.header, realm=name))
    except ConfigError as error:
        raise ConfigError(
            error.message,
            setting=f"auth.{name}.{error.setting}",
            origin=error.origin or origin,
            remedy=error.remedy,
        ) from None


def _key_set(name: str, options: TokenAuth, upstreams: Upstreams, directory: Path) -> JWKS:
    if options.jwks.startswith("file:"):
        return JWKS.from_file(directory / options.jwks.removeprefix("file:"), name=name, options=options)
    service = _SERVICE_URL.fullmatch(options.jwks)
    if service is not None:

        async def fetch() -> bytes:
            headers = [(b"host", service[1].encode()), (b"accept", b"application/json")]
            request = outgoing_request("GET", service[1], service[2].encode("ascii"), headers)
            return await _document(await upstreams.send(service[1], request))
    else:

        async def fetch() -> bytes:
            # Once in minutes: no connection is worth keeping. Redirects are not followed.
            async with (
                httpx2.AsyncClient(timeout=options.fetch_timeout) as client,
                client.stream("GET", options.jwks) as response,
            ):
                return await _document(response)

    return JWKS(fetch, name=name, options=options)


async def _document(response: httpx2.Response) -> bytes:
    try:
        if response.status_code != 200:
            raise OSError(f"the provider answered {response.status_code}")
        document = b""
        async for chunk in response.aiter_bytes():
            document += chunk
            if len(document) > _LARGEST_KEY_SET:
                raise OSError("the provider's key set is too large")
        return document
    finally:
        await response.aclose()


class Guard:
    """Lets in who a route lets in.

    :param ways: any one of them will do; none lets everybody in.
    """

    def __init__(self, route: RouteOptions, ways: tuple[Authenticator, ...]) -> None:
        self._ways = ways
        self._scopes = frozenset(route.scopes)

    async def check(self, request: Inbound) -> Principal | None:
        """Who is calling; None where nobody is asked.

        The first way whose kind of credential was sent decides alone: a wrong credential is
        refused, even if another one would have done.

        :raises Refusal: 401, 403, or 503 if it cannot be judged now.
        """
        if not self._ways:
            return None
        try:
            for way in self._ways:
                credential = way.credential(request)
                if credential is not None:
                    return self._allowed(await way.verify(credential))
        except AuthError as error:
            raise Refusal(401, error.why, headers=(_challenge(error.challenge),)) from None
        except KeysUnavailable as error:
            raise Refusal(
                503, "the token cannot be checked now", headers=retry_after(error.retry_after)
            ) from None
        raise Refusal(
            401, "this needs authentication", headers=[_challenge(way.challenge()) for way in self._ways]
        )

    def _allowed(self, principal: Principal) -> Principal:
        if self._scopes <= principal.scopes:
            return principal
        needed = " ".join(sorted(self._scopes))
        challenge = _challenge(f'Bearer error="insufficient_scope", scope="{needed}"')
        raise Refusal(
            403,
            "the credential does not allow this",
            headers=(challenge,) if principal.scheme == "jwt" else (),
        )


def _challenge(value: str) -> tuple[bytes, bytes]:
    return (b"www-authenticate", value.encode("ascii", "replace"))
