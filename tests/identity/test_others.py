"""No identity, the choice between the ways, and tokens as values."""

import time

import pytest

from xloud_image.config.settings import AuthSettings, PolicySettings
from xloud_image.errors import ConfigError
from xloud_image.identity import build
from xloud_image.identity.tokens import Known, Token, Unreadable
from xloud_image.policy import Policy


async def test_none_is_always_the_same_admin_in_one_project():
    identity = build(AuthSettings(), Policy())
    await identity.start()
    ctx = await identity.authenticate({"X-Auth-Token": "whatever"})
    assert ctx.is_admin
    assert ctx.project == "00000000000000000000000000000001"
    await identity.aclose()


async def test_none_obeys_the_rule_of_who_is_admin(tmp_path):
    (tmp_path / "policy.yaml").write_text('"context_is_admin": "role:other"\n')
    policy = Policy(PolicySettings(policy_file=str(tmp_path / "policy.yaml")))
    assert not (await build(AuthSettings(), policy).authenticate({})).is_admin


def test_none_needs_a_project():
    with pytest.raises(ConfigError, match="needs a project"):
        build(AuthSettings(none_project=""), Policy())


def test_an_unknown_way():
    with pytest.raises(ConfigError, match="there is no authentication 'ldap'"):
        build(AuthSettings(method="ldap"), Policy())


TOKEN = Token(
    expires=time.time() + 60,
    user="u",
    project="p",
    roles=frozenset({"member"}),
    access_rules=(("image", "GET", "/v2/images/**"),),
)


def test_a_known_token_survives_the_shared_cache():
    known = Known(TOKEN, 123.5)
    assert Known.unpack(known.pack()) == known
    open_token = Known(Token(expires=1.0), 2.0)
    assert Known.unpack(open_token.pack()) == open_token


@pytest.mark.parametrize("data", [b"", b"null", b"[]", b"{}", b'{"fresh_until": 1}', b'{"fresh_until": "x"}', b"\xff"])
def test_what_is_no_entry_is_unreadable(data):
    with pytest.raises(Unreadable):
        Known.unpack(data)


@pytest.mark.parametrize(
    "body", [b"", b"{}", b'{"token": {}}', b'{"token": {"user": {}, "expires_at": "soon"}}', b"<html>"]
)
def test_what_is_no_token_document_is_unreadable(body):
    with pytest.raises(Unreadable):
        Token.from_keystone(body)


#   pattern                    path                     good
PATHS = [
    ("/v2/images",             "/v2/images",            True),
    ("/v2/images",             "/v2/images/1",          False),
    ("/v2/images/*",           "/v2/images/1",          True),
    ("/v2/images/*",           "/v2/images/1/file",     False),
    ("/v2/images/{id}/file",   "/v2/images/1/file",     True),
    ("/v2/images/{id}/file",   "/v2/images/1/2/file",   False),
    ("/v2/**",                 "/v2/images/1/file",     True),
    ("/v2/**",                 "/v3/images",            False),
    ("/v2/i.ages",             "/v2/images",            False),
    ("/v2/images",             "/v2/images\n",          False),
]  # fmt: skip


@pytest.mark.parametrize(("pattern", "path", "good"), PATHS)
def test_patterns_of_access_rules(pattern, path, good):
    token = Token(expires=1.0, access_rules=(("image", "GET", pattern),))
    assert token.allows_call("image", "GET", path) is good
    assert not token.allows_call("image", "PUT", path)
    assert not token.allows_call("volume", "GET", path)


def test_no_access_rules_allow_all_and_empty_ones_nothing():
    assert Token(expires=1.0).allows_call("image", None, None)
    assert not Token(expires=1.0, access_rules=()).allows_call("image", "GET", "/v2/images")
