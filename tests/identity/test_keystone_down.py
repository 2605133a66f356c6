"""A real Keystone that stops, hangs, comes back, and whose tokens expire."""

import asyncio
import os
import signal
import time

import pytest

from tests.identity.keystone_callers import headers, settings_for, started
from tests.load import quiet
from tests.servers.keystone import Keystone
from xloud_image.errors import IdentityUnavailable, Unauthorized


@pytest.fixture(scope="module")
def life():
    """Seconds that a token lives."""
    return min(60, int(quiet(12)))


@pytest.fixture(scope="module")
def short_lived(keystone, life):
    """A Keystone of its own whose tokens live for some seconds (and `keystone` says whether one can run)."""
    server = Keystone(workers=1, expiration=life)
    server.start()
    yield server
    server.close()


@pytest.fixture
def running(short_lived):
    """It, running, whatever the test before did."""
    if short_lived._process is None:
        short_lived.start()
    return short_lived


async def test_an_expired_token_passes_with_a_service_token_only(running, life):
    token = running.token("demo")
    async with started(settings_for(running)) as identity:
        await identity.authenticate(headers(token))
        await asyncio.sleep(life + 0.5)
        with pytest.raises(Unauthorized):
            await identity.authenticate(headers(token))
        ctx = await identity.authenticate(headers(token, running.token("glance")))
        assert ctx.project == running.project_id("demo")
        with pytest.raises(Unauthorized):
            await identity.authenticate(headers(token, running.token("alt")))
        with pytest.raises(Unauthorized):
            await identity.authenticate(headers(token, token))


async def test_the_own_token_is_got_anew(running):
    """Our own token was revoked: the question after that gets another, and nobody notices."""
    async with started(settings_for(running, token_cache_time=0)) as identity:
        await identity.authenticate(headers(running.token("demo")))
        own = identity._validator._plugin.auth_ref.auth_token
        running.revoke(own)
        await identity.authenticate(headers(running.token("demo")))
        assert identity._validator._plugin.auth_ref.auth_token != own


async def test_keystone_stops_and_comes_back(running, life):
    section = settings_for(running, token_cache_time=1, http_request_max_retries=1)
    async with started(section) as identity:
        known, unknown = running.token("demo"), running.token("alt")
        begun = time.monotonic()
        await identity.authenticate(headers(known))
        running.stop()

        # known: served until its own expiry, though its cache time is over
        await asyncio.sleep(1.1)
        assert (await identity.authenticate(headers(known))).project
        later = time.monotonic()
        for _ in range(20):
            await identity.authenticate(headers(known))
            await asyncio.sleep(0.02)
        assert time.monotonic() - later < 1.5, "a known token waited for a Keystone that is down"

        # unknown: 503, in time, and at once for the next
        asked = time.monotonic()
        with pytest.raises(IdentityUnavailable, match="try again"):
            await identity.authenticate(headers(unknown))
        assert time.monotonic() - asked < 2 * section.http_connect_timeout
        asked = time.monotonic()
        with pytest.raises(IdentityUnavailable):
            await identity.authenticate(headers("gAAAAAother"))
        assert time.monotonic() - asked < 0.2

        # never past its own expiry
        await asyncio.sleep(max(0.0, begun + life + 0.5 - time.monotonic()))
        with pytest.raises(IdentityUnavailable):
            await identity.authenticate(headers(known))

        running.start()
        fresh = running.token("demo")
        for _ in range(60):
            try:
                assert (await identity.authenticate(headers(fresh))).project
                break
            except IdentityUnavailable:
                await asyncio.sleep(0.1)
        else:
            pytest.fail("Keystone is back, the identity is not")


async def test_a_keystone_that_hangs_costs_a_bounded_time(running):
    token, other = running.token("demo"), running.token("alt")
    async with started(settings_for(running, http_connect_timeout=1)) as identity:
        await identity.authenticate(headers(token))
        os.killpg(running.pid, signal.SIGSTOP)
        try:
            begun = time.monotonic()
            answers = await asyncio.gather(
                *(identity.authenticate(headers(f"gAAAAA{number}")) for number in range(30)),
                identity.authenticate(headers(other)),
                return_exceptions=True,
            )
            took = time.monotonic() - begun
            assert {type(answer) for answer in answers} == {IdentityUnavailable}
            assert took < 2.5
            await identity.authenticate(headers(token))
        finally:
            os.killpg(running.pid, signal.SIGCONT)
