"""Tokens shared through a real memcached: found by other processes, sealed, and never in the way."""

import asyncio
import hashlib
import os
import signal
import time

import aiomcache
import pytest

from tests.identity.keystone_callers import headers, settings_for, started
from tests.load import quiet
from tests.servers.memcached import Memcached
from tests.servers.process import stand_still
from xloud_image.errors import IdentityUnavailable
from xloud_image.identity.cache import TIMEOUT, Shared
from xloud_image.identity.seal import Seal
from xloud_image.identity.tokens import Known, Token

STRATEGIES = [None, "MAC", "ENCRYPT"]
NOBODY = {"auth_url": "http://127.0.0.1:9/v3"}


def with_cache(keystone, server, strategy, secret="a secret of the operator", **more):
    return settings_for(
        keystone,
        memcached_servers=(server.address,),
        memcache_security_strategy=strategy,
        memcache_secret_key=secret,
        **more,
    )


@pytest.fixture
def own_memcached(memcached):
    """A memcached that the test may stop."""
    server = Memcached()
    server.start()
    yield server
    server.close()


@pytest.mark.parametrize("strategy", STRATEGIES)
async def test_another_process_finds_the_token_without_keystone(keystone, memcached, strategy):
    token = keystone.token("demo")
    async with started(with_cache(keystone, memcached, strategy)) as first:
        known = await first.authenticate(headers(token))
    cut_off = with_cache(keystone, memcached, strategy, auth=NOBODY, http_request_max_retries=0)
    async with started(cut_off) as second:
        assert await second.authenticate(headers(token)) == known
        assert second.asked == 0


@pytest.mark.parametrize("strategy", ["MAC", "ENCRYPT"])
async def test_who_has_not_the_secret_reads_and_writes_nothing(keystone, memcached, strategy):
    token = keystone.token("demo")
    async with started(with_cache(keystone, memcached, strategy)) as first:
        await first.authenticate(headers(token))
    stranger = with_cache(keystone, memcached, strategy, secret="another", auth=NOBODY, http_request_max_retries=0)
    async with started(stranger) as second:
        with pytest.raises(IdentityUnavailable):
            await second.authenticate(headers(token))


@pytest.mark.parametrize("strategy", ["MAC", "ENCRYPT"])
async def test_entries_that_were_changed_or_moved_are_ignored(keystone, own_memcached, strategy, caplog):
    seal = Seal(strategy, "a secret of the operator")
    admin, demo = keystone.token("admin"), keystone.token("demo")
    async with started(with_cache(keystone, own_memcached, strategy)) as first:
        await first.authenticate(headers(admin))
        await first.authenticate(headers(demo))
    client = aiomcache.Client("127.0.0.1", own_memcached.port, pool_size=1)
    names = {token: seal.keys(token)[0] for token in (admin, demo)}
    entry = {token: await client.get(name) for token, name in names.items()}
    forged = bytearray(entry[demo])
    forged[-3] ^= 1
    for text in (entry[admin], bytes(forged), b"", b"{}", entry[demo][:20]):
        await client.set(names[demo], text)
        async with started(with_cache(keystone, own_memcached, strategy)) as second:
            ctx = await second.authenticate(headers(demo))
        assert second.asked == 1
        assert not ctx.is_admin
    await client.close()
    await asyncio.sleep(0)
    assert "not written by this service" in caplog.text


@pytest.mark.parametrize("strategy", STRATEGIES)
async def test_neither_token_nor_contents_can_be_read_from_memcached(keystone, own_memcached, strategy):
    token, said = keystone.login("demo")
    async with started(with_cache(keystone, own_memcached, strategy)) as identity:
        await identity.authenticate(headers(token))
    name = Seal(strategy, "a secret of the operator").keys(token)[0]
    client = aiomcache.Client("127.0.0.1", own_memcached.port, pool_size=1)
    stored = await client.get(name)
    await client.close()
    await asyncio.sleep(0)
    assert stored is not None
    assert token.encode() not in name + stored
    assert (said["user"]["id"].encode() in stored) == (strategy != "ENCRYPT")
    if strategy:
        assert hashlib.sha256(token.encode()).hexdigest().encode() not in name


async def test_a_dead_memcached_costs_nothing_worth_mention(keystone, own_memcached, caplog):
    async with started(with_cache(keystone, own_memcached, "MAC")) as identity:
        await identity.authenticate(headers(keystone.token("demo")))
        os.kill(own_memcached.pid, signal.SIGKILL)
        token = keystone.token("demo")
        begun = time.monotonic()
        assert (await identity.authenticate(headers(token))).project
        assert time.monotonic() - begun < quiet(TIMEOUT + 2)
    assert caplog.text.count("skipped for") == 1


async def test_a_memcached_that_hangs_costs_its_time_once(own_memcached):
    shared = Shared((own_memcached.address,), Seal(None, None))
    known = Known(Token(expires=time.time() + 60, user="u"), time.time() + 30)
    await shared.put("one", known)
    assert await shared.get("one") == known
    stand_still(own_memcached.pid)
    try:
        begun = time.monotonic()
        assert await shared.get("one") is None
        assert TIMEOUT <= time.monotonic() - begun < quiet(TIMEOUT + 0.5)
        begun = time.monotonic()
        assert await shared.get("one") is None
        assert time.monotonic() - begun < quiet(0.05)
    finally:
        os.kill(own_memcached.pid, signal.SIGCONT)
    # the answer that came too late must not be taken for the next one
    shared._servers[0].skip_until = 0.0
    assert await shared.get("two") is None
    assert await shared.get("one") == known
    await shared.aclose()


async def test_entries_stay_where_they_are_when_another_server_goes(memcached, own_memcached):
    third = Memcached()
    third.start()
    shared = Shared((memcached.address, own_memcached.address, third.address), Seal(None, None))
    known = Known(Token(expires=time.time() + 60, user="u"), time.time() + 30)
    tokens = [f"token-{number}" for number in range(90)]
    for token in tokens:
        await shared.put(token, known)
    homes = {token: shared._server_of(Seal(None, None).keys(token)[0]).address for token in tokens}
    assert len(set(homes.values())) == 3
    third.close()
    for token in tokens:
        found = await shared.get(token)
        if homes[token] != third.address:
            assert found == known
    await shared.aclose()


async def test_expired_tokens_are_not_stored(memcached):
    shared = Shared((memcached.address,), Seal(None, None))
    await shared.put("old", Known(Token(expires=time.time() - 1), time.time() + 30))
    assert await shared.get("old") is None
    await shared.aclose()


async def test_a_shared_cache_without_seal_is_a_warning(keystone, memcached, caplog):
    async with started(with_cache(keystone, memcached, None)):
        pass
    assert "can pass for anybody" in caplog.text
