"""Passwords that are guessed in great numbers do not keep others out."""

import asyncio

import bcrypt
import pytest

from tests.identity.test_basic import make, sent
from xloud_image.errors import IdentityUnavailable, Unauthorized
from xloud_image.identity import queue

NAMES = ("alice", "bob", "carol", "dora")


@pytest.fixture
async def identity(tmp_path, monkeypatch):
    users, projects = tmp_path / "users", tmp_path / "projects"
    stored = bcrypt.hashpw(b"right", bcrypt.gensalt(5)).decode()
    users.write_text("".join(f"{name}:{stored}\n" for name in NAMES))
    projects.write_text("".join(f"{name}:p:member\n" for name in NAMES))
    made = make(users, projects)
    yield made
    await made.aclose()


def one_name(number):
    return "bob", "192.0.2.1"


def names_of_no_file(number):
    return f"nobody{number}", "192.0.2.1"


def known_names(number):
    return NAMES[1 + number % 3], "192.0.2.1"


def everywhere(number):
    return f"nobody{number}", f"192.0.2.{number % 250}"


def networks_of_ipv6(number):
    return "alice", f"2001:db8::{number:x}"


def all_names_from_everywhere(number):
    return NAMES[number % 4], f"192.0.2.{number % 7}"


@pytest.mark.parametrize(
    "attack", [one_name, names_of_no_file, known_names, everywhere, networks_of_ipv6, all_names_from_everywhere]
)
async def test_an_honest_login_waits_for_a_few_others_only(identity, attack):
    ended = []

    async def guess(number):
        name, address = attack(number)
        try:
            await identity.authenticate(sent(name, f"wrong{number}"), address=address)
        except (Unauthorized, IdentityUnavailable) as error:
            ended.append(type(error))

    guesses = [asyncio.create_task(guess(number)) for number in range(200)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert len(ended) < 200
    context = await identity.authenticate(sent("alice", "right"), address="198.51.100.7")
    assert context.user == "alice"
    assert ended.count(Unauthorized) < 20, "of 66 that were taken"
    await asyncio.gather(*guesses)
    assert ended.count(IdentityUnavailable) >= 200 - queue.PLACES - 2


async def test_a_password_that_was_right_before_goes_first(identity):
    assert (await identity.authenticate(sent("alice", "right"), address="192.0.2.1")).user == "alice"
    identity._right.clear()  # a minute later
    done = []

    async def guess(number):
        try:
            await identity.authenticate(sent("alice", f"wrong{number}"), address="192.0.2.1")
        except (Unauthorized, IdentityUnavailable):
            done.append(number)

    guesses = [asyncio.create_task(guess(number)) for number in range(64)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await identity.authenticate(sent("alice", "right"), address="192.0.2.1")
    assert len(done) < 10, "the same name, the same address, and yet not behind 64 guesses"
    await asyncio.gather(*guesses)


async def test_every_place_is_given_back(identity):
    for _ in range(3):
        await asyncio.gather(
            *(identity.authenticate(sent(f"x{number}", "y"), address=f"192.0.2.{number}") for number in range(100)),
            return_exceptions=True,
        )
    assert identity._queue._free == 2
    assert identity._queue._waiting == 0
    assert not identity._queue._lanes


@pytest.mark.parametrize(
    ("address", "found"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("fe80::1%eth0", "fe80::"),
        (None, ""),
        ("no:address", "no:address"),
    ],
)
def test_networks(address, found):
    assert queue.network(address) == found
