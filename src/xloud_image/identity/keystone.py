"""Callers by Keystone v3 tokens. How Keystone is spoken to stands in `validator`, what is remembered in
`cache`.

A token that was found valid counts as valid for `token_cache_time` seconds, then Keystone is asked again.
While Keystone does not answer, a remembered token counts until its own expiry, and one that is not remembered
is IdentityUnavailable: nobody is let in unseen.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
import time
from typing import TYPE_CHECKING, Any, Final

from xloud_image.errors import IdentityUnavailable, Unauthorized
from xloud_image.identity.base import Identity
from xloud_image.identity.cache import Recent, Shared
from xloud_image.identity.context import Context
from xloud_image.identity.seal import Seal
from xloud_image.identity.tokens import Known, Token
from xloud_image.identity.validator import Validator

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping, Sequence

    from xloud_image.config.settings import KeystoneSettings
    from xloud_image.policy import Policy

_LOG = logging.getLogger(__name__)

REMEMBERED: Final = 4096  # tokens in this process; about 1.5 KiB each
REFUSED_FOR: Final = 10.0  # seconds for which a refused token is refused without asking again
_NOT_VALID: Final = "The token is not valid, or not any more."
_TOKEN: Final = re.compile(r"[\x21-\x7e]{1,8192}")


class KeystoneIdentity(Identity):
    """Raises ConfigError when [keystone_authtoken] cannot work as written."""

    def __init__(self, settings: KeystoneSettings, policy: Policy, *, anonymous: bool = False) -> None:
        uri = settings.www_authenticate_uri or settings.auth.get("auth_url", "")
        super().__init__(policy, anonymous=anonymous, challenge=f'Keystone uri="{uri}"')
        self._settings = settings
        self._seal = Seal(settings.memcache_security_strategy, settings.memcache_secret_key)
        self._validator = Validator(settings)
        self._shared: Shared | None = None
        self._known: Recent[Known] = Recent(REMEMBERED)
        self._bad: Recent[float] = Recent(REMEMBERED)
        self._flights: dict[bytes, asyncio.Task[Token]] = {}
        self._service_roles = frozenset(role.lower() for role in settings.service_token_roles)

    async def start(self) -> None:
        """Opens nothing yet: each connection is made when the first token comes."""
        settings = self._settings
        if settings.memcached_servers and settings.token_cache_time > 0:
            self._shared = Shared(settings.memcached_servers, self._seal)
            if self._seal.strategy == "NONE":
                _LOG.warning(
                    "[keystone_authtoken] memcached_servers without memcache_security_strategy:"
                    " whoever can write to memcached can pass for anybody"
                )

    async def aclose(self) -> None:
        flights = list(self._flights.values())
        for flight in flights:
            flight.cancel()
        await asyncio.gather(*flights, return_exceptions=True)
        self._validator.close()
        if self._shared is not None:
            await self._shared.aclose()
            self._shared = None

    async def authenticate(
        self,
        headers: Mapping[str, str],
        *,
        method: str | None = None,
        path: str | None = None,
        address: str | None = None,
    ) -> Context:
        """X-Auth-Token names the caller. A valid X-Service-Token with one of `service_token_roles` lets an
        expired X-Auth-Token pass, as long as Keystone still knows it; a bad service token refuses the
        request.
        """
        text = headers.get("X-Auth-Token")
        if not text:
            return self._without_credentials()
        service: Token | None = None
        trusted = False
        service_text = headers.get("X-Service-Token")
        if service_text:
            service = await self._token(service_text.strip(), expired=False)
            trusted = not self._service_roles.isdisjoint(service.roles)
            if not trusted and self._settings.service_token_roles_required:
                raise self._refused("The service token does not have the role of a service.")
        text = text.strip()
        token = await self._token(text, expired=trusted)
        if not trusted and not token.allows_call(self._settings.service_type, method, path):
            raise self._refused("The application credential of this token is not good for this call.")
        return Context(
            user=token.user,
            project=token.project,
            roles=token.roles,
            is_admin=self._policy.is_admin(token.roles),
            user_domain=token.user_domain,
            project_domain=token.project_domain,
            system_scope=token.system_scope,
            domain=token.domain,
            service_roles=service.roles if service else frozenset(),
            token=text,
            user_name=token.user_name,
        )

    async def catalogue(self) -> Sequence[Mapping[str, Any]]:
        return await self._validator.catalogue()

    async def _token(self, text: str, *, expired: bool) -> Token:
        """The valid token, from memory if it is fresh there; `expired`: it may be past its expiry."""
        key = hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()
        known = self._known.get(key)
        now = time.time()
        if known is not None and now < known.fresh_until and now < known.token.expires:
            return known.token
        if _TOKEN.fullmatch(text) is None:
            raise self._refused("The token is not written as a token.")
        key += b"x" if expired else b"."
        if (self._bad.get(key) or 0.0) > now:
            raise self._refused(_NOT_VALID)
        flight = self._flights.get(key)
        if flight is None:
            flight = self._start_flight(key, self._find(key, text, expired=expired))
        if known is not None and self._validator.failing and now < known.token.expires:
            return known.token  # the flight finds out whether Keystone is back; nobody waits for that
        # a client that goes away must not end the look-up for the others who wait for the same token
        return await asyncio.shield(flight)

    def _start_flight(self, key: bytes, work: Coroutine[None, None, Token]) -> asyncio.Task[Token]:
        flight = asyncio.create_task(work, name="validate a token")
        self._flights[key] = flight

        def landed(task: asyncio.Task[Token]) -> None:
            del self._flights[key]
            if not task.cancelled():
                task.exception()  # it may be that nobody waits any more

        flight.add_done_callback(landed)
        return flight

    async def _find(self, key: bytes, text: str, *, expired: bool) -> Token:
        """memcached, then Keystone; both are told what the other does not know."""
        place = key[:-1]
        known = self._known.get(place)
        if self._shared is not None:
            found = await self._shared.get(text)
            if found is not None and (known is None or found.fresh_until > known.fresh_until):
                known = found
                self._known.put(place, found)
                now = time.time()
                if now < found.fresh_until and now < found.token.expires:
                    return found.token
        try:
            token = await self._validator.validate(text, expired=expired)
        except Unauthorized as error:
            await self._forget(place, text)
            self._bad.put(key, time.time() + REFUSED_FOR)
            raise self._refused(_NOT_VALID) from error
        except IdentityUnavailable:
            if known is not None and time.time() < known.token.expires:
                return known.token
            raise
        now = time.time()
        if token.expires <= now:
            await self._forget(place, text)
            if expired:
                return token
            raise self._refused("The token has expired.")
        lasts = self._settings.token_cache_time
        if lasts > 0:
            known = Known(token, min(now + lasts, token.expires))
            self._known.put(place, known)
            if self._shared is not None:
                await self._shared.put(text, known)
        return token

    async def _forget(self, place: bytes, text: str) -> None:
        self._known.drop(place)
        if self._shared is not None:
            await self._shared.drop(text)
