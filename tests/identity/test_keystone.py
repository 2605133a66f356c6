"""Callers by tokens of a real Keystone that works."""

import asyncio
import logging
import time

import pytest

from tests.identity.keystone_callers import headers, settings_for, started
from tests.load import quiet
from xloud_image.config.settings import AuthSettings, KeystoneSettings
from xloud_image.errors import ConfigError, IdentityUnavailable, Unauthorized
from xloud_image.identity import build
from xloud_image.policy import Policy


async def test_a_valid_token_names_its_user_project_and_roles(keystone):
    token, said = keystone.login("demo")
    async with started(settings_for(keystone)) as identity:
        ctx = await identity.authenticate(headers(token))
    assert ctx.user == said["user"]["id"]
    assert ctx.project == said["project"]["id"] == keystone.project_id("demo")
    assert ctx.roles == {"member", "reader"}
    assert (ctx.user_domain, ctx.project_domain) == ("default", "default")
    assert not ctx.is_admin
    assert not ctx.read_only
    assert ctx.token == token
    assert token not in repr(ctx)


async def test_the_admin_is_admin_and_a_role_compares_without_case(keystone):
    admin = keystone.token()
    # Keystone keeps the case in which a role was made
    role, _ = keystone.call("POST", "/roles", {"role": {"name": "Image_Auditor"}}, admin)
    user = keystone.login("demo-reader")[1]["user"]["id"]
    path = f"/projects/{keystone.project_id('demo')}/users/{user}/roles/{role['role']['id']}"
    keystone.call("PUT", path, token=admin)
    try:
        async with started(settings_for(keystone)) as identity:
            assert (await identity.authenticate(headers(admin))).is_admin
            reader = await identity.authenticate(headers(keystone.token("demo-reader")))
            assert "image_auditor" in reader.roles
    finally:
        keystone.call("DELETE", path, token=admin)
        keystone.call("DELETE", f"/roles/{role['role']['id']}", token=admin)


@pytest.mark.parametrize(
    "token", ["nonsense", "gAAAAA" + "x" * 200, "zwölf", "two words", "x\r\nX-Subject-Token: y", "x" * 9000, " "]
)
async def test_what_is_no_token_is_refused(keystone, token):
    async with started(settings_for(keystone)) as identity:
        with pytest.raises(Unauthorized) as caught:
            await identity.authenticate(headers(token))
    assert caught.value.headers == {"WWW-Authenticate": f'Keystone uri="{keystone.url}"'}


async def test_no_token(keystone):
    async with started(settings_for(keystone)) as identity:
        with pytest.raises(Unauthorized) as caught:
            await identity.authenticate({})
        assert caught.value.headers == {"WWW-Authenticate": f'Keystone uri="{keystone.url}"'}
    async with started(settings_for(keystone), anonymous=True) as identity:
        assert (await identity.authenticate({})).read_only
        with pytest.raises(Unauthorized):
            await identity.authenticate(headers("nonsense"))


async def test_a_token_is_asked_about_once_by_all_who_wait(keystone):
    token = keystone.token("demo")
    async with started(settings_for(keystone)) as identity:
        callers = await asyncio.gather(*(identity.authenticate(headers(token)) for _ in range(50)))
        assert len({ctx.user for ctx in callers}) == 1
        await identity.authenticate(headers(token))
        assert identity.asked == 1


async def test_a_client_that_goes_away_does_not_end_the_question_of_the_others(keystone):
    token = keystone.token("demo")
    async with started(settings_for(keystone)) as identity:
        first = asyncio.create_task(identity.authenticate(headers(token)))
        second = asyncio.create_task(identity.authenticate(headers(token)))
        await asyncio.sleep(0)
        first.cancel()
        assert (await second).project
        assert identity.asked == 1


async def test_a_refused_token_is_not_asked_about_again_at_once(keystone):
    async with started(settings_for(keystone)) as identity:
        for _ in range(3):
            with pytest.raises(Unauthorized):
                await identity.authenticate(headers("gAAAAAunknown"))
        assert identity.asked == 1


async def test_a_revoked_token_is_refused_after_the_cache_time(keystone):
    token = keystone.token("demo")
    async with started(settings_for(keystone, token_cache_time=1)) as identity:
        await identity.authenticate(headers(token))
        keystone.revoke(token)
        await asyncio.sleep(1.1)
        with pytest.raises(Unauthorized):
            await identity.authenticate(headers(token))


async def test_without_cache_time_every_request_asks(keystone):
    token = keystone.token("demo")
    async with started(settings_for(keystone, token_cache_time=0)) as identity:
        for _ in range(2):
            await identity.authenticate(headers(token))
        assert identity.asked == 2


async def test_a_service_token_adds_its_roles_and_a_bad_one_refuses(keystone):
    user, service, other = keystone.token("demo"), keystone.token("glance"), keystone.token("alt")
    async with started(settings_for(keystone, service_token_roles_required=False)) as identity:
        ctx = await identity.authenticate(headers(user, service))
        assert ctx.project == keystone.project_id("demo")
        assert "service" in ctx.service_roles
        assert "service" not in ctx.roles
        assert (await identity.authenticate(headers(user, other))).service_roles == {"member", "reader"}
        with pytest.raises(Unauthorized):
            await identity.authenticate(headers(user, "gAAAAAunknown"))
    async with started(settings_for(keystone)) as identity:
        await identity.authenticate(headers(user, service))
        with pytest.raises(Unauthorized, match="role of a service"):
            await identity.authenticate(headers(user, other))


async def test_an_application_credential_is_good_for_its_calls_only(keystone):
    token, said = keystone.login("demo")
    user = said["user"]["id"]
    rules = [{"service": "image", "method": "GET", "path": "/v2/images/*"}]
    made, _ = keystone.call(
        "POST",
        f"/users/{user}/application_credentials",
        {"application_credential": {"name": "reads", "access_rules": rules}},
        token,
    )
    credential = made["application_credential"]
    identity_of_it = {
        "methods": ["application_credential"],
        "application_credential": {"id": credential["id"], "secret": credential["secret"]},
    }
    try:
        _, answer = keystone.call("POST", "/auth/tokens", {"auth": {"identity": identity_of_it}})
        restricted = answer["x-subject-token"]
        async with started(settings_for(keystone)) as identity:
            ctx = await identity.authenticate(headers(restricted), method="GET", path="/v2/images/1")
            assert ctx.project == keystone.project_id("demo")
            for method, path in (("DELETE", "/v2/images/1"), ("GET", "/v2/images/1/file"), (None, None)):
                with pytest.raises(Unauthorized, match="not good for this call"):
                    await identity.authenticate(headers(restricted), method=method, path=path)
    finally:
        keystone.call("DELETE", f"/users/{user}/application_credentials/{credential['id']}", token=token)


async def test_a_token_for_the_system(keystone):
    password = {"user": {"name": "admin", "password": "adminpass", "domain": {"id": "default"}}}
    _, answer = keystone.call(
        "POST",
        "/auth/tokens",
        {
            "auth": {
                "identity": {"methods": ["password"], "password": password},
                "scope": {"system": {"all": True}},
            }
        },
    )
    async with started(settings_for(keystone)) as identity:
        ctx = await identity.authenticate(headers(answer["x-subject-token"]))
    assert (ctx.system_scope, ctx.project, ctx.is_admin) == ("all", None, True)


async def test_a_wrong_password_of_our_own_is_503_and_said_in_the_log(keystone, caplog):
    wrong = settings_for(keystone, auth={"password": "not-the-password"})
    async with started(wrong) as identity:
        begun = time.monotonic()
        for _ in range(5):
            with pytest.raises(IdentityUnavailable) as caught:
                await identity.authenticate(headers(keystone.token("demo")))
        assert time.monotonic() - begun < quiet(5)
    assert caught.value.headers["Retry-After"]
    assert "refuses the service's own user" in caplog.text
    assert caplog.text.count("refuses the service's own user") == 1
    assert "not-the-password" not in caplog.text


async def test_an_own_user_without_rights_is_503_and_said_in_the_log(keystone, caplog):
    plain = {"username": "demo", "password": "demopass", "project_name": "demo"}
    async with started(settings_for(keystone, auth=plain)) as identity:
        with pytest.raises(IdentityUnavailable):
            await identity.authenticate(headers(keystone.token("alt")))
    assert "needs the role service or admin" in caplog.text


async def test_a_keystone_that_the_catalogue_does_not_have_is_503_and_said_in_the_log(keystone, caplog):
    async with started(settings_for(keystone, region_name="Nowhere")) as identity:
        with pytest.raises(IdentityUnavailable):
            await identity.authenticate(headers(keystone.token("demo")))
    assert "Nowhere" in caplog.text


async def test_no_secret_is_logged(keystone, caplog):
    caplog.set_level(logging.DEBUG)
    token, service = keystone.token("demo"), keystone.token("glance")
    async with started(settings_for(keystone)) as identity:
        await identity.authenticate(headers(token, service))
        with pytest.raises(Unauthorized):
            await identity.authenticate(headers("gAAAAAsecret"))
        own = identity._validator._plugin.get_token(identity._validator._adapter.session)
    assert "/auth/tokens" in caplog.text
    for secret in (token, service, own, "gAAAAAsecret", "servicepass"):
        assert secret not in caplog.text


async def test_a_remembered_token_costs_less_than_50_microseconds(keystone):
    sent = headers(keystone.token("demo"))
    async with started(settings_for(keystone)) as identity:
        await identity.authenticate(sent)
        best = 1.0
        for _ in range(5):
            begun = time.process_time()
            for _ in range(1000):
                await identity.authenticate(sent)
            best = min(best, (time.process_time() - begun) / 1000)
    assert best < 50e-6


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"auth": {"username": "glance"}}, "auth_url is missing"),
        ({"auth_type": "telepathy"}, "there is no 'telepathy'"),
        ({"memcache_security_strategy": "ENCRYPT"}, "needs memcache_secret_key"),
        ({"memcache_security_strategy": "rot13"}, "none of None, MAC, ENCRYPT"),
    ],
)
def test_options_that_cannot_work(changes, reason):
    section = KeystoneSettings(**{"auth": {"auth_url": "http://127.0.0.1:1/v3"}, **changes})
    with pytest.raises(ConfigError, match=reason):
        build(AuthSettings(method="keystone", keystone=section), Policy())
    with pytest.raises(ConfigError, match="keystone_authtoken"):
        build(AuthSettings(method="keystone"), Policy())
