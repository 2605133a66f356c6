"""HTTP Basic with files as Apache's htpasswd writes them."""

import asyncio
import base64
import os
import time

import bcrypt
import pytest

from xloud_image.config.settings import AuthSettings
from xloud_image.errors import ConfigError, Forbidden, IdentityUnavailable, Unauthorized
from xloud_image.identity import basic, build, queue
from xloud_image.policy import Policy

# written by htpasswd -nbB of Apache 2.4: "correct horse"; with -C 10 "pässwort"; 80 times "x"
USERS = """\
# who may come in
alice:$2y$05$maDsfBeN1dR5Qn1eHqLud.qmHeIBnXkTHR8qIdxsD4ZXrPUHlj6gu
bob:$2y$10$MAY9cXzyNuFcYWv.9E2sLehe3uVdtWyUCkoTkfyIaGimkd2hPmfv2

long:$2y$05$Plc5zgbQ1BhUj4JURzakV.c8wFH9SzkmE4qEPxBc8lnco0T6DJkVa
"""
PROJECTS = """\
alice:p1:admin
bob : p2 : Member, auditor
"""


@pytest.fixture
def files(tmp_path):
    users, projects = tmp_path / "users", tmp_path / "projects"
    users.write_text(USERS)
    projects.write_text(PROJECTS)
    return users, projects


@pytest.fixture
async def identity(files):
    made = make(*files)
    await made.start()
    yield made
    await made.aclose()


def make(users, projects, **more):
    return build(
        AuthSettings(
            method="http_basic", http_basic_user_file=str(users), http_basic_projects_file=str(projects), **more
        ),
        Policy(),
    )


def sent(user, password):
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


async def test_users_of_htpasswd(identity):
    alice = await identity.authenticate(sent("alice", "correct horse"))
    assert (alice.user, alice.project, alice.is_admin) == ("alice", "p1", True)
    assert alice.roles == {"admin", "manager", "member", "reader"}
    bob = await identity.authenticate(sent("bob", "pässwort"))
    assert (bob.project, bob.roles, bob.is_admin) == ("p2", {"member", "reader", "auditor"}, False)


@pytest.mark.parametrize(
    ("user", "password"),
    [("alice", "wrong"), ("alice", ""), ("nobody", "correct horse"), ("", ""), ("alice", "correct horse\0")],
)
async def test_wrong_ones(identity, user, password):
    with pytest.raises(Unauthorized, match="user or the password") as caught:
        await identity.authenticate(sent(user, password))
    assert caught.value.headers == {"WWW-Authenticate": 'Basic realm="xloud-image", charset="UTF-8"'}


@pytest.mark.parametrize("header", ["Bearer x", "Basic", "Basic !!!", "Basic " + base64.b64encode(b"nocolon").decode()])
async def test_headers_that_are_none(identity, header):
    with pytest.raises(Unauthorized, match="not 'Basic'"):
        await identity.authenticate({"Authorization": header})


async def test_no_header(identity, files):
    with pytest.raises(Unauthorized):
        await identity.authenticate({})
    assert (await make(*files, allow_anonymous_access=True).authenticate({})).read_only


async def test_a_password_past_72_bytes_is_refused_though_its_first_72_are_right(identity):
    for length in (73, 80, 5000):
        with pytest.raises(Unauthorized):
            await identity.authenticate(sent("long", "x" * length))
    with pytest.raises(Forbidden, match="belongs to no project"):
        await identity.authenticate(sent("long", "x" * 72))


async def test_hashing_happens_once_and_off_the_loop(identity, monkeypatch):
    calls = []
    check = bcrypt.checkpw

    def counted(*args):
        calls.append(args)
        return check(*args)

    monkeypatch.setattr(basic.bcrypt, "checkpw", counted)
    await asyncio.gather(*(identity.authenticate(sent("bob", "pässwort")) for _ in range(20)))
    await identity.authenticate(sent("bob", "pässwort"))
    assert len(calls) == 1
    for _ in range(3):
        with pytest.raises(Unauthorized):
            await identity.authenticate(sent("bob", "wrong"))
    assert len(calls) == 2


async def test_the_loop_goes_on_while_passwords_are_hashed(files):
    files[0].write_text("slow:" + bcrypt.hashpw(b"x", bcrypt.gensalt(12)).decode() + "\n")
    identity = make(*files)
    longest, done = 0.0, False

    async def beat():
        nonlocal longest
        while not done:
            before = time.monotonic()
            await asyncio.sleep(0.005)
            longest = max(longest, time.monotonic() - before - 0.005)

    beating = asyncio.create_task(beat())
    for number in range(3):
        begun = time.monotonic()
        with pytest.raises(Unauthorized):
            await identity.authenticate(sent("slow", f"wrong{number}"))
        assert time.monotonic() - begun > 0.05
    done = True
    await beating
    await identity.aclose()
    assert longest < 0.1


async def test_an_unknown_user_costs_as_much_as_a_wrong_password(identity):
    async def seconds(user):
        best = 9.0
        for number in range(5):
            begun = time.process_time()  # of all threads: another process's work does not count
            with pytest.raises(Unauthorized):
                await identity.authenticate(sent(user, f"wrong{number}"))
            best = min(best, time.process_time() - begun)
        return best

    known, unknown = await seconds("bob"), await seconds("nobody")
    assert 0.5 < known / unknown < 2


async def test_too_many_at_once_are_told_to_come_back(files):
    files[0].write_text("slow:" + bcrypt.hashpw(b"x", bcrypt.gensalt(10)).decode() + "\n")
    identity = make(*files)
    answers = await asyncio.gather(
        *(identity.authenticate(sent("slow", f"wrong{number}")) for number in range(queue.PLACES + basic.THREADS + 6)),
        return_exceptions=True,
    )
    kinds = [type(answer) for answer in answers]
    assert kinds.count(IdentityUnavailable) == 6
    assert kinds.count(Unauthorized) == queue.PLACES + basic.THREADS
    await identity.aclose()


async def test_changes_of_the_files_count_and_broken_ones_do_not(identity, files, monkeypatch, caplog):
    monkeypatch.setattr(basic, "_LOOK_EVERY", 0.0)
    await identity.authenticate(sent("alice", "correct horse"))
    files[1].write_text("alice:p9:member\n")
    assert (await identity.authenticate(sent("alice", "correct horse"))).project == "p9"
    files[0].write_text("alice:plain\n")
    assert (await identity.authenticate(sent("alice", "correct horse"))).project == "p9"
    assert "stay as they were" in caplog.text
    files[0].write_text(USERS.replace("alice", "carol"))
    os.utime(files[0], (1, 1))
    with pytest.raises(Unauthorized):
        await identity.authenticate(sent("alice", "correct horse"))


@pytest.mark.parametrize(
    ("users", "projects", "reason"),
    [
        ("alice:$apr1$5NilZZ/P$RXZFB.OFo991IOXofJ8.F1\n", PROJECTS, r"users, line 1: .*htpasswd -B"),
        ("alice:secret\n", PROJECTS, "line 1"),
        (USERS, "alice:p1\n", "projects, line 1: not of the form"),
        (USERS, "# x\n\nalice::admin\n", "projects, line 3"),
    ],
)
def test_files_that_cannot_be_used(files, users, projects, reason):
    files[0].write_text(users)
    files[1].write_text(projects)
    with pytest.raises(ConfigError, match=reason) as caught:
        make(*files)
    assert "secret" not in caught.value.message
    assert "apr1" not in caught.value.message


def test_files_that_are_not_there(files):
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        make(files[0], files[1].with_name("absent"))
    with pytest.raises(ConfigError, match="http_basic_projects_file"):
        build(AuthSettings(method="http_basic", http_basic_user_file=str(files[0])), Policy())
