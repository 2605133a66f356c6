"""Uploads in several requests, as clients send them that are right, odd or wrong."""

import concurrent.futures
import hashlib
import io
import threading
from collections.abc import Iterator

import pytest
import requests

from tests.api.cloud import OCTETS
from tests.formats.build import qcow2
from tests.imports.conftest import begin, ended
from tests.servers.http import Answer
from tests.uploads.conftest import DATA, HALF, PARTIAL, Broken, Scene, Sender, await_that, breaking, digest
from xloud_image import resuming


@pytest.mark.parametrize("kind", ["file", "stage"])
def test_the_data_comes_in_three_pieces(scene: Scene, kind: str) -> None:
    sender = Sender(scene.ann, kind=kind)
    answer = sender.begin(DATA[:1000], Upload_Length=str(len(DATA)), Repr_Digest=digest(DATA))
    assert (answer.status, answer.headers["upload-offset"]) == (201, "1000")
    assert sender.status == ("saving" if kind == "file" else "uploading")
    told = sender.head().headers
    assert (told["upload-offset"], told["upload-complete"], told["upload-length"]) == ("1000", "?0", str(len(DATA)))
    assert (told["cache-control"], told["repr-digest"]) == ("no-store", digest(DATA))
    assert "max-size=" in told["upload-limit"]
    assert "max-age=" in told["upload-limit"]
    assert sender.add(1000, DATA[1000:HALF], Content_Digest=digest(DATA[1000:HALF], "sha-512")).status == 204
    assert scene.staged(sender.image) == 2
    answer = sender.last(HALF, DATA[HALF:])
    assert (answer.status, answer.headers["upload-complete"]) == (204, "?1")
    assert ("x-image-meta-store" in answer.headers) == (kind == "file")
    assert sender.head().headers["upload-complete"] == "?1"
    if kind == "stage":
        assert (sender.status, scene.staged(sender.image)) == ("uploading", 3)
        assert begin(scene.ann, sender.image).status == 202
        assert ended(scene.ann, sender.image)["status"] == "success"
    assert sender.has(DATA)
    assert scene.ann.download(sender.image).body == DATA
    scene.nothing_left(sender.image)


def test_all_of_it_in_one_request_and_none_of_it(scene: Scene) -> None:
    for data in (DATA, b""):
        sender = Sender(scene.ann)
        assert sender.begin(data, "?1").status == 204
        assert sender.has(data)
        scene.nothing_left(sender.image)


def test_chunked_pieces_and_a_store_of_the_clients_choice(scene: Scene) -> None:
    sender = Sender(scene.ann)
    assert sender.begin(iter([DATA[:HALF]]), X_Image_Meta_Store="slow").status == 201
    assert "upload-length" not in sender.head().headers
    assert sender.last(HALF, iter([DATA[HALF:-5], DATA[-5:]])).headers["x-image-meta-store"] == "slow"
    assert sender.has(DATA)


def test_what_broke_off_is_kept_as_far_as_it_came(scene: Scene) -> None:
    sender = Sender(scene.ann)
    assert sender.begin(Upload_Length=str(len(DATA))).status == 201
    with pytest.raises(Broken):
        sender.last(0, breaking(DATA, HALF, scene.is_writing), Content_Length=str(len(DATA)))
    assert 0 < sender.offset <= HALF
    assert sender.go_on(DATA).status == 204
    assert sender.has(DATA)


def test_a_piece_that_does_not_begin_at_the_offset(scene: Scene) -> None:
    sender = Sender(scene.ann)
    sender.begin(DATA[:HALF])
    for offset in (0, HALF - 1, HALF + 1, len(DATA)):
        answer = sender.add(offset, DATA[offset:])
        assert (answer.status, answer.headers["upload-offset"]) == (409, str(HALF))
        assert answer.headers["content-type"] == "application/problem+json"
        told = answer.json()
        assert told["type"] == "https://iana.org/assignments/http-problem-types#mismatching-upload-offset"
        assert (told["expected-offset"], told["provided-offset"]) == (HALF, offset)
    assert sender.last(HALF, DATA[HALF:]).status == 204
    assert sender.has(DATA)


def test_a_complete_upload_takes_nothing_more(scene: Scene) -> None:
    sender = Sender(scene.ann)
    sender.begin(DATA[:HALF])
    assert sender.last(HALF, DATA[HALF:]).status == 204
    for data, what in ((b"", "completed-upload"), (b"more", "inconsistent-upload-length")):
        answer = sender.last(len(DATA), data)
        assert (answer.status, answer.headers["upload-complete"]) == (400, "?1")
        assert answer.json()["type"].endswith(f"#{what}")
    assert sender.has(DATA)
    assert sender.cancel().status == 204
    assert sender.head().status == 404
    assert sender.has(DATA)


@pytest.mark.parametrize("chunked", [False, True])
def test_lengths_that_contradict_each_other(scene: Scene, chunked: bool) -> None:
    sender = Sender(scene.ann)
    assert sender.begin(DATA[:HALF], Upload_Length="100").status == (400)
    assert sender.status == "queued"
    sender.begin(DATA[:HALF], Upload_Length=str(len(DATA)))
    for answer in (
        sender.add(HALF, DATA[HALF:], Upload_Length=str(len(DATA) + 1)),
        sender.last(HALF, DATA[HALF:-1]),
        sender.add(HALF, DATA[HALF:] + b"!"),
    ):
        assert (answer.status, answer.json()["type"].rpartition("#")[2]) == (400, "inconsistent-upload-length")
    assert sender.offset == HALF
    assert sender.last(HALF, iter([DATA[HALF:-1]])).status == 400  # the end is missing, and may still come
    assert sender.offset == len(DATA) - 1
    if chunked:
        answer = sender.last(len(DATA) - 1, iter([DATA[-1:], b"and more"]))
        assert (answer.status, answer.headers["upload-complete"]) == (400, "?1")
        assert (sender.head().status, sender.status) == (404, "queued")
        scene.nothing_left(sender.image, 0)
    else:
        assert sender.last(len(DATA) - 1, DATA[-1:]).status == 204
        assert sender.has(DATA)


def test_digests_that_are_wrong(scene: Scene) -> None:
    sender = Sender(scene.ann)
    sender.begin(DATA[:HALF], Repr_Digest=digest(b"something else"))
    answer = sender.add(HALF, DATA[HALF:], Content_Digest=digest(DATA))
    assert (answer.status, sender.offset, scene.staged(sender.image)) == (400, HALF, 1)
    for field in ("sha-256=abc", "sha-256=:!:", "adler=:AAAA:", "sha-256=:AAAA:"):
        assert sender.add(HALF, DATA[HALF:], Content_Digest=field).status == 400
    assert sender.last(HALF, DATA[HALF:], Repr_Digest=digest(DATA)).status == 400  # another than before
    answer = sender.last(HALF, DATA[HALF:])
    assert (answer.status, answer.headers["upload-complete"]) == (400, "?1")
    assert "sha256" in answer.json()["error"]["message"]
    assert sender.status == "queued"
    scene.nothing_left(sender.image, 0)
    assert sender.begin(DATA, "?1").status == 204
    assert sender.has(DATA)


def test_a_digest_that_comes_with_the_last_piece_of_staged_data(scene: Scene) -> None:
    sender = Sender(scene.ann, kind="stage")
    sender.begin(DATA[:HALF])
    answer = sender.last(HALF, DATA[HALF:], Repr_Digest=digest(b"other"))
    assert (answer.status, sender.status) == (400, "queued")
    sender.begin(DATA[:HALF])
    assert sender.last(HALF, DATA[HALF:], Repr_Digest=digest(DATA)).status == 204
    assert sender.cancel().status == 409
    assert scene.ann.delete(sender.image).status == 204
    scene.nothing_left(sender.image, 0)


def test_bad_content_is_refused_at_the_first_piece(scene: Scene) -> None:
    data = qcow2(backing=0x200, backing_length=11, behind=b"/etc/passwd")
    sender = Sender(scene.ann, scene.ann.new(disk_format="qcow2"))
    answer = sender.begin(data + bytes(1 << 20), Upload_Length="60000000")
    assert (answer.status, answer.headers["upload-complete"]) == (415, "?1")
    assert sender.status == "queued"
    # in pieces that are too small to tell anything it is refused at the end
    sender.begin(data[:20])
    assert sender.add(20, data[20:60]).status == 204
    assert sender.last(60, data[60:] + bytes(1 << 20)).status == 415
    assert sender.status == "queued"
    scene.nothing_left(sender.image, 0)


def test_what_is_larger_than_images_may_be(scene: Scene) -> None:
    sender = Sender(scene.ann)
    assert sender.begin(Upload_Length=str((64 << 20) + 1)).status == 413
    assert sender.status == "queued"
    sender.begin(DATA)
    assert sender.add(len(DATA), b"", Upload_Length=str(1 << 40)).status == 413
    assert sender.offset == len(DATA)
    blocks = [bytes(1 << 20)] * 64
    assert sender.add(len(DATA), iter(blocks)).status == 413
    assert sender.status == "queued"
    scene.nothing_left(sender.image, 0)


def test_requests_that_are_none(scene: Scene) -> None:
    sender = Sender(scene.ann)
    sender.begin(DATA[:10])
    ask, path = scene.ann.ask, sender.path
    good = {"Content-Type": PARTIAL, "Upload-Offset": "10", "Upload-Complete": "?0"}
    assert ask("PATCH", path, body=b"x", headers={**good, "Content-Type": OCTETS}).status == 415
    for name in ("Upload-Offset", "Upload-Complete"):
        assert ask("PATCH", path, body=b"x", headers={k: v for k, v in good.items() if k != name}).status == 400
        for value in ("-1", "1e3", "?2", "", "١", "9" * 16):
            assert ask("PATCH", path, body=b"x", headers={**good, name: value.encode().decode("latin-1")}).status == 400
    assert ask("PATCH", path + "0", body=b"x", headers=good).status == 404
    assert ask("PUT", path, body=b"x", headers=good).status == 405
    assert ask("GET", path).json()["offset"] == 10
    other = scene.ann.new()
    assert ask("HEAD", path.replace(sender.image, other)).status == 404
    # what is no boolean is passed over: a plain upload
    for value in ("1", "true", "?2"):
        image = scene.ann.new()
        assert scene.ann.upload(image, DATA, Upload_Complete=value).status == 204
    answer = Sender(scene.ann, other).begin(b"", Upload_Draft_Interop_Version="3")
    assert answer.status == 400
    assert sender.cancel().status == 204
    assert (sender.head().status, sender.status) == (404, "queued")
    scene.nothing_left(sender.image, 0)


def test_options_tell_what_is_offered(scene: Scene) -> None:
    for what in ("file", "stage"):
        answer = scene.ann.ask("OPTIONS", f"/v2/images/{scene.ann.new()}/{what}")
        assert answer.headers["accept-patch"] == PARTIAL
        assert answer.headers["upload-limit"].startswith(f"max-size={64 << 20}, max-age=")
    assert "accept-patch" not in scene.ann.ask("OPTIONS", "/v2/images").headers


def test_an_image_has_one_upload_and_it_is_found_again(scene: Scene) -> None:
    sender = Sender(scene.ann)
    sender.begin(DATA[:10])
    again = Sender(scene.ann, sender.image)
    assert again.begin().status == 409
    assert again.path == sender.path
    assert scene.ann.upload(sender.image, DATA).status == 409
    stranger = Sender(scene.cloud.bob, scene.ann.new())
    stranger.image = sender.image
    answer = stranger.begin()
    assert (answer.status, stranger.path) == (404, "")


def test_whose_upload_it_is(scene: Scene) -> None:
    """The image's project and its rights decide at each request; which token or user began it does not."""
    sender = Sender(scene.ann)
    sender.begin(DATA[:HALF])
    for caller, status in ((scene.cloud.bob, 404), (scene.cloud.rita, 403), (scene.cloud.nobody, 401)):
        other = Sender(caller, sender.image)
        other.path = sender.path
        assert other.head().status == status
        assert other.add(HALF, b"x").status == status
        assert other.cancel().status == status
    assert sender.offset == HALF
    boss = Sender(scene.cloud.admin, sender.image)
    boss.path = sender.path
    assert boss.last(HALF, DATA[HALF:]).status == 204
    assert sender.has(DATA)


def test_a_later_request_takes_over_from_one_that_hangs(scene: Scene) -> None:
    """What the earlier one still brings changes nothing."""
    sender = Sender(scene.ann)
    sender.begin(Upload_Length=str(len(DATA)))
    going_on = threading.Event()

    def slow() -> Iterator[bytes]:
        yield DATA[:HALF]
        going_on.wait(60)
        yield b"Z" * (len(DATA) - HALF)

    answers: list[Answer] = []
    thread = threading.Thread(target=lambda: answers.append(sender.last(0, slow(), Content_Length=str(len(DATA)))))
    thread.start()
    await_that(scene.is_writing)
    assert sender.offset == 0  # nothing of it is durable yet, and this stops it
    assert sender.add(0, DATA[:100]).status == 204
    going_on.set()
    thread.join()
    assert answers[0].status == 409
    assert sender.offset == 100
    assert sender.last(100, DATA[100:]).status == 204
    assert sender.has(DATA)
    scene.nothing_left(sender.image)


def test_two_at_once_add_each_byte_once(scene: Scene) -> None:
    sender = Sender(scene.ann)
    sender.begin(Upload_Length=str(len(DATA)))
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        statuses = sorted(answer.status for answer in pool.map(lambda _: sender.add(0, DATA[:HALF]), range(4)))
    assert statuses == [204, 409, 409, 409]
    assert sender.last(HALF, DATA[HALF:]).status == 204
    assert sender.has(DATA)


def test_a_deleted_image_takes_its_upload_with_it(scene: Scene) -> None:
    for kind in ("file", "stage"):
        sender = Sender(scene.ann, kind=kind)
        sender.begin(DATA)
        assert scene.ann.delete(sender.image).status == 204
        assert sender.head().status == 404
        assert sender.last(len(DATA)).status == 404
        scene.nothing_left(sender.image, 0)


def test_one_that_nobody_finishes_is_given_up(scene: Scene) -> None:
    sender = Sender(scene.ann)
    sender.begin(DATA)
    scene.change("UPDATE xloud_uploads SET expires_at = '2020-01-01 00:00:00.000000'")
    await_that(lambda: sender.status == "queued")
    assert sender.head().status == 404
    scene.nothing_left(sender.image, 0)
    await_that(lambda: not scene.query("SELECT id FROM xloud_uploads"))


def test_how_many_there_may_be(scene: Scene) -> None:
    sender = Sender(scene.ann)
    sender.begin(DATA[:10])
    scene.change("UPDATE xloud_uploads SET parts = 4000 WHERE image_id = ?", sender.image)
    answer = sender.add(10, DATA[10:])
    assert (answer.status, sender.offset) == (413, 10)
    scene.change(
        "WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 99) INSERT INTO xloud_uploads (id,"
        " image_id, kind, slot, owner, state, received, parts, epoch, begun_at, expires_at) SELECT 'u' || n, 'i' || n,"
        " 'file', 'i' || n, 'alpha', 'open', 0, 0, 0, begun_at, expires_at FROM n, xloud_uploads WHERE image_id = ?",
        sender.image,
    )
    assert Sender(scene.ann).begin().status == 413
    assert Sender(scene.cloud.bob).begin().status == 201
    scene.change("DELETE FROM xloud_uploads WHERE id LIKE 'u%'")
    assert sender.cancel().status == 204
    assert Sender(scene.ann).begin().status == 201


def test_the_client_goes_on_where_it_was(scene: Scene, session: requests.Session) -> None:
    image = scene.ann.new()
    target = f"{scene.service.url}/v2/images/{image}/file"
    found: list[str] = []
    done: list[int] = []

    class Quits(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            if self.tell() >= 2_000_000:
                raise KeyboardInterrupt
            return super().read(size)

    def headers() -> dict[str, str]:
        return scene.ann.headers

    value = ("sha-256", hashlib.sha256(DATA).digest())
    with pytest.raises(KeyboardInterrupt):
        resuming.upload(session, target, Quits(DATA), headers=headers, digest=value, begun=found.append)
    with pytest.raises(resuming.Differs):
        resuming.upload(session, target, io.BytesIO(DATA + b"!"), headers=headers)
    resuming.upload(
        session, target, io.BytesIO(DATA), headers=headers, digest=value, progress=lambda at, _: done.append(at)
    )
    assert done[0] > 1_000_000
    assert done[-1] == len(DATA)
    assert Sender(scene.ann, image).has(DATA)
    assert resuming.state(session, found[0], headers=headers).complete
    with pytest.raises(resuming.Refused) as refused:
        resuming.upload(session, target, io.BytesIO(DATA), headers=headers)
    assert refused.value.status == 409
    plain = f"{scene.service.url}/v2/images"
    with pytest.raises(resuming.NotOffered):
        resuming.upload(session, plain, io.BytesIO(DATA), headers=headers)
