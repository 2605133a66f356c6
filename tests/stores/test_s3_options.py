"""The s3 store's options, locations and refusals; signatures beside botocore's; the arithmetic of parts."""

import datetime
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from botocore import auth, awsrequest, credentials
from hypothesis import given, settings
from hypothesis import strategies as st
from yarl import URL

from tests.servers.certificates import Authority
from tests.servers.place import HOST
from tests.servers.rgw import DOMAIN, Rgw
from tests.stores.buckets import Impatient, boto, new_bucket, s3_options
from xloud_image.errors import BlobNotFound, ConfigError, ImageServiceError, StoreUnavailable, WriteDenied
from xloud_image.stores.base import Store
from xloud_image.stores.kit.chunks import Gathered
from xloud_image.stores.s3 import client, signing
from xloud_image.stores.s3.location import Address
from xloud_image.stores.s3.parts import MIB, PARTS, Plan
from xloud_image.stores.s3.store import S3Store
from xloud_image.stores.suite import collect, feed, noise

GIB, TIB = 1 << 30, 1 << 40
Make = Callable[..., S3Store]


@pytest.fixture
async def make(rgw: Rgw) -> AsyncIterator[Make]:
    """Makes stores of the gateway, which are closed at the end."""
    made: list[S3Store] = []

    def one(bucket: str, **given: Any) -> S3Store:
        made.append(Impatient("cold", s3_options(rgw, bucket, **given)))
        return made[-1]

    yield one
    for store in made:
        await store.aclose()


async def works(store: Store) -> str:
    """Writes, reads a range, deletes; the location."""
    await store.check()
    blob = await store.write("some-key", feed(b"0123456789"), size=10)
    async with store.open(blob.url, offset=3, length=4) as reader:
        assert await collect(reader) == b"3456"
        assert reader.version == blob.version == (await store.stat(blob.url)).version
    await store.delete(blob.url)
    return blob.url


def calls(store: Store, url: str) -> dict[str, Callable[[], Awaitable[Any]]]:
    async def read() -> None:
        async with store.open(url) as reader:
            await collect(reader)

    return {
        "check": store.check,
        "stat": lambda: store.stat(url),
        "open": read,
        "write": lambda: store.write("other", feed(b"x"), size=1),
        "discard": lambda: store.discard("other"),
        "delete": lambda: store.delete(url),
    }


# signatures

_TEXT = st.text(st.characters(codec="ascii", exclude_categories=("Cc",)), min_size=1, max_size=30)
_NAMES = st.sampled_from(["if-match", "range", "x-amz-meta-xloud-write", "content-length"])


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    method=st.sampled_from(["GET", "PUT", "HEAD", "POST", "DELETE"]),
    key=st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,40}", fullmatch=True),
    query=st.dictionaries(st.sampled_from(["uploads", "uploadId", "partNumber", "prefix", "max-keys"]), _TEXT),
    headers=st.dictionaries(_NAMES, _TEXT.map(str.strip).filter(bool)),
    secret=_TEXT,
    at=st.integers(1_600_000_000, 2_000_000_000),
)
def test_a_signature_is_what_botocore_computes(
    method: str, key: str, query: dict[str, str], headers: dict[str, str], secret: str, at: int
) -> None:
    text = signing.escaped_query(query)
    host, path = Address.of("s3.example.com:7480", "images").request(key)
    keys = signing.Keys("AKID", secret)
    ours = signing.signed(keys, "eu-x-1", method, path, text, {"host": host, **headers}, "a" * 64, at=at)
    request = awsrequest.AWSRequest(
        method, f"http://{host}{path}{'?' if text else ''}{text}", headers={**headers, "X-Amz-Content-SHA256": "a" * 64}
    )
    request.context["timestamp"] = ours["x-amz-date"]
    request.headers["X-Amz-Date"] = ours["x-amz-date"]
    theirs = auth.S3SigV4Auth(credentials.Credentials("AKID", secret), "s3", "eu-x-1")
    signed_text = theirs.string_to_sign(request, theirs.canonical_request(request))
    assert ours["authorization"].rpartition("=")[2] == theirs.signature(signed_text, request)
    assert datetime.datetime.strptime(ours["x-amz-date"], "%Y%m%dT%H%M%SZ").replace(
        tzinfo=datetime.UTC
    ).timestamp() == float(at)


# parts


@pytest.mark.parametrize("part", [5, 8, 10, 64, 200])
def test_ten_thousand_parts_reach_a_tebibyte_of_unknown_size(part: int) -> None:
    plan = Plan(part * MIB, 10 * part * MIB, part * MIB)
    sizes = [plan.size_of(number, None) for number in range(1, PARTS + 1)]
    assert sizes[0] == part * MIB
    assert sizes == sorted(sizes)
    assert TIB <= sum(sizes) < 2.1 * TIB
    assert sizes[-1] <= max(206, part) * MIB


def test_how_parts_grow_by_default() -> None:
    plan = Plan(10 * MIB, 100 * MIB, 10 * MIB)
    total, number = 0, 0
    while total < 100 * GIB:
        number += 1
        total += plan.size_of(number, None)
    assert plan.size_of(number, None) <= 64 * MIB
    assert plan.window(plan.size_of(number, None)) <= 128 * MIB
    assert plan.window(10 * MIB) == 100 * MIB


@settings(max_examples=300, deadline=None, derandomize=True)
@given(size=st.integers(0, 5 * TIB), part=st.integers(5, 512))
def test_a_known_size_never_needs_more_parts_than_there_may_be(size: int, part: int) -> None:
    each = Plan(part * MIB, part * MIB, -1).size_of(1, size)
    assert each >= part * MIB
    assert -(-size // each) <= PARTS
    assert each == part * MIB or each <= size / PARTS + MIB


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    chunks=st.lists(st.integers(0, 200_000), max_size=20),
    takes=st.lists(st.integers(1, 300_000), max_size=20),
)
def test_gathered_bytes_come_out_in_order(chunks: list[int], takes: list[int]) -> None:
    gathered, given_bytes, taken = Gathered(512 * 4096), b"", b""
    for number, size in enumerate(chunks):
        gathered.add(noise(size, number))
        given_bytes += noise(size, number)
    for size in takes:
        part = b"".join(gathered.take(size))
        assert len(part) == min(size, len(given_bytes) - len(taken))
        taken += part
        assert gathered.held == len(given_bytes) - len(taken)
    assert taken + b"".join(gathered.take(1 << 30)) == given_bytes


# addresses


@pytest.mark.parametrize(
    ("host", "given", "request_to", "region", "location"),
    [
        ("gw:7480", {}, ("gw:7480", "/images/key"), "us-east-1", "s3://gw:7480/images/key"),
        ("http://GW:80/", {}, ("gw", "/images/key"), "us-east-1", "s3://gw/images/key"),
        ("https://gw:443", {}, ("gw", "/images/key"), "us-east-1", "s3+https://gw/images/key"),
        ("https://gw/s3", {"region": "a"}, ("gw", "/s3/images/key"), "a", "s3+https://gw/s3/images/key"),
        ("gw", {"url_format": "virtual"}, ("images.gw", "/key"), "us-east-1", "s3://gw/images/key"),
        (
            "https://s3.eu-central-1.amazonaws.com",
            {},
            ("images.s3.eu-central-1.amazonaws.com", "/key"),
            "eu-central-1",
            "s3+https://s3.eu-central-1.amazonaws.com/images/key",
        ),
        (
            "https://s3.us-gov-west-1.amazonaws.com",
            {"url_format": "path"},
            ("s3.us-gov-west-1.amazonaws.com", "/images/key"),
            "us-gov-west-1",
            "s3+https://s3.us-gov-west-1.amazonaws.com/images/key",
        ),
        (
            "s3.amazonaws.com",
            {},
            ("images.s3.amazonaws.com", "/key"),
            "us-east-1",
            "s3://s3.amazonaws.com/images/key",
        ),
    ],
)
def test_addresses(host: str, given: dict[str, str], request_to: tuple[str, str], region: str, location: str) -> None:
    address = Address.of(host, "images", **given)
    assert address.request("key") == request_to
    assert address.region == region
    assert address.location("key") == location
    assert address.key_of(location) == "key"


@pytest.mark.parametrize(
    "rest",
    [
        "gw:7480/images/key",
        "GW:7480/images/key",
        "AKID:secret@gw:7480/images/key",
        "AKID:se%2Fcr+et@gw:7480/images/key",
        "AKID:se/c@r/et@gw:7480/images/key",
        "AK:ID:x://y/z@gw:7480/images/key",
    ],
)
@pytest.mark.parametrize("scheme", ["s3", "s3+http", "s3+https"])
def test_old_locations_are_ours_whoever_wrote_them(scheme: str, rest: str) -> None:
    assert Address.of("http://gw:7480", "images").key_of(f"{scheme}://{rest}") == "key"


@pytest.mark.parametrize(
    "location",
    [
        "s3://gw:7481/images/key",
        "s3://other:7480/images/key",
        "s3://gw:7480/images2/key",
        "s3://gw:7480/images/",
        "s3://gw:7480/images/..",
        "s3://gw:7480/images/a/key",
        "s3://gw:7480/x/images/key",
        "s3://gw:7480@evil/images/key",
        "s3://images/key",
        "http://gw:7480/images/key",
        "swift+https://gw:7480/images/key",
    ],
)
def test_other_locations_are_not(location: str) -> None:
    assert Address.of("http://gw:7480", "images").key_of(location) is None


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ({"host": "ftp://x"}, "s3_store_host"),
        ({"host": "http://user:word@x"}, "s3_store_host"),
        ({"host": None}, "s3_store_host"),
        ({"bucket": "a/b"}, "s3_store_bucket"),
        ({"secret_key": None}, "s3_store_secret_key"),
        ({"host": "https://x", "cacert": "/nowhere/ca.pem"}, "/nowhere/ca.pem"),
    ],
)
def test_options_that_cannot_be(given: dict[str, Any], word: str) -> None:
    options = {option.name: option.default for option in S3Store.TYPE.options}
    options |= dict.fromkeys(("s3_store_host", "s3_store_access_key", "s3_store_secret_key", "s3_store_bucket"), "x")
    options |= {f"s3_store_{name}": value for name, value in given.items()}
    with pytest.raises(ConfigError, match=word) as raised:
        S3Store("cold", options)
    assert "word" not in raised.value.message


# with the gateway


async def test_a_location_with_credentials_is_read_with_the_configured_ones(rgw: Rgw, make: Make) -> None:
    bucket = new_bucket(rgw)
    store = make(bucket)
    blob = await store.write("key", feed(b"data"), size=4)
    for who in ("OLDKEY:old/secret@", f"{rgw.access}:{rgw.secret}@"):
        url = blob.url.replace("://", f"://{who}")
        async with store.open(url) as reader:
            assert await collect(reader) == b"data"
        assert (await store.stat(url)).size == 4
    await store.delete(url)
    with pytest.raises(BlobNotFound):
        await store.stat(blob.url)


@pytest.mark.parametrize("tls", [False, True], ids=["http", "https"])
async def test_the_bucket_as_a_part_of_the_host_name(
    tls: bool, rgw: Rgw, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = new_bucket(rgw)
    asked = []
    resolve = socket.getaddrinfo

    def getaddrinfo(host: str, *rest: Any, **more: Any) -> Any:
        asked.append(host)
        return resolve(HOST if str(host).endswith(DOMAIN) else host, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    port = rgw.tls_port if tls else rgw.port
    host = f"{'https' if tls else 'http'}://{DOMAIN}:{port}"
    url = await works(make(bucket, tls=tls, host=host, bucket_url_format="virtual"))
    assert url == f"s3{'+https' if tls else ''}://{DOMAIN}:{port}/{bucket}/some-key"
    assert f"{bucket}.{DOMAIN}" in asked


async def test_a_host_without_scheme_is_plain_http(rgw: Rgw, make: Make) -> None:
    assert (await works(make(new_bucket(rgw), host=f"{HOST}:{rgw.port}"))).startswith(f"s3://{HOST}:{rgw.port}/")


async def test_a_missing_bucket_is_named(rgw: Rgw, make: Make) -> None:
    store = make("not-there")
    url = store.address.location("key")
    for name, call in calls(store, url).items():
        if name == "discard":  # nothing can be left where there is no bucket
            await call()
            continue
        with pytest.raises(
            (StoreUnavailable, WriteDenied), match=r"no bucket not-there.*s3_store_create_bucket_on_put"
        ):
            await call()


async def test_a_missing_bucket_is_made_by_the_first_upload(rgw: Rgw, make: Make) -> None:
    name = f"{new_bucket(rgw)}-new"
    store = make(name, create_bucket_on_put=True)
    assert "first upload" in (await store.check()).detail
    assert name not in [bucket["Name"] for bucket in boto(rgw, tls=False).list_buckets()["Buckets"]]
    await works(store)
    assert (await store.check()).detail == "ok"


async def test_a_wrong_secret_says_which_options(rgw: Rgw, make: Make) -> None:
    bucket = new_bucket(rgw)
    await make(bucket).write("key", feed(b"x"), size=1)
    for wrong in ({"secret_key": "wrong-secret"}, {"access_key": "AKnobody"}):
        store = make(bucket, **wrong)
        for call in calls(store, store.address.location("key")).values():
            with pytest.raises(ImageServiceError, match=r"s3_store_access_key, s3_store_secret_key") as raised:
                await call()
            assert raised.value.status == 503
            assert not any(value in raised.value.message for value in wrong.values())
    assert await make(bucket).stat(store.address.location("key"))


async def test_a_bucket_of_somebody_else(rgw: Rgw, make: Make) -> None:
    name = f"other-{time.time_ns()}"
    rgw.add_user(name, f"AK{name}", "other-secret")
    bucket = new_bucket(rgw)
    store = make(bucket, access_key=f"AK{name}", secret_key="other-secret")
    for call in calls(store, store.address.location("key")).values():
        with pytest.raises(ImageServiceError, match=f"may do in the bucket {bucket}"):
            await call()


async def test_clocks_that_differ(rgw: Rgw, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make(new_bucket(rgw))
    sign = signing.signed
    monkeypatch.setattr(client, "signed", lambda *words: sign(*words, at=time.time() - 3600))
    for call in calls(store, store.address.location("key")).values():
        with pytest.raises(ImageServiceError, match="clock"):
            await call()


async def test_a_certificate_that_is_not_trusted(rgw: Rgw, make: Make) -> None:
    with pytest.raises(StoreUnavailable, match="certificate is not trusted"):
        await make(new_bucket(rgw), tls=True, cacert="").check()
    store = make(new_bucket(rgw), tls=True, cacert=str(Authority("somebody else").ca))
    for call in calls(store, store.address.location("key")).values():
        with pytest.raises(StoreUnavailable, match="certificate is not trusted"):
            await call()


@pytest.mark.parametrize(
    ("tls", "given", "signs"),
    [
        (False, {}, True),
        (True, {}, False),
        (True, {"enable_data_integrity_protection": True}, True),
        (True, {"request_checksum_calculation": "when_supported"}, True),
    ],
)
async def test_who_vouches_for_the_bytes_on_the_way(
    tls: bool, given: dict[str, Any], signs: bool, rgw: Rgw, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make(new_bucket(rgw), tls=tls, **given)
    payloads = set()
    sign = signing.signed

    def signed(*words: Any) -> dict[str, str]:
        if words[2] == "PUT":
            payloads.add(words[6] != signing.UNSIGNED)
        return sign(*words)

    monkeypatch.setattr(client, "signed", signed)
    await works(store)
    assert payloads == {signs}


def test_the_url_is_sent_as_it_was_signed() -> None:
    text = signing.escaped_query({"uploadId": "2~a/b+c=d e", "prefix": "ü"})
    assert text == "prefix=%C3%BC&uploadId=2~a%2Fb%2Bc%3Dd%20e"
    assert str(URL(f"http://h/p?{text}", encoded=True)).endswith(text)
