"""Every error of the service as one tree: its HTTP status, and whether trying again can help.

No error here knows a database, a store or a request; the one handler in `api.app` turns them into answers.

    ImageServiceError                500
    ├── BadRequest                   400   ├── UrlRefused  ├── WrongLength  └── UploadEnded
    ├── Unauthorized                 401
    ├── Forbidden                    403   ├── ReadOnlyField  ├── Protected
    ├── NotFound                     404   ├── NoSuchImage  └── NoSuchNamespace
    ├── MethodNotAllowed             405
    ├── Conflict                     409   ├── Duplicate  ├── InUse  └── WrongOffset
    ├── Gone                         410   └── WriteDisabled
    ├── PreconditionFailed           412
    ├── TooLarge                     413   ├── QuotaExceeded  ├── StoreFull
    ├── WrongMediaType               415   └── FormatRefused
    ├── BadRange                     416
    ├── ExpectationFailed            417
    ├── HeaderTooLarge               431
    ├── NoSuchMethod, NoSuchCoding   501
    ├── NoSuchVersion                505
    ├── Unavailable                  503   ├── StoreUnavailable (StoreRefused)  ├── WriteDenied
    │                                      ├── IdentityUnavailable  ├── DatabaseUnavailable (DatabaseFull)
    │                                      ├── SourceUnavailable (SourceSilent)  ├── CannotConvert
    │                                      └── BrokerUnavailable
    ├── SourceError (fetching)       502   ├── SourceRefused  ├── SourceChanged  └── Unverified
    ├── BlobError (raised by stores) 500   ├── BlobNotFound  ├── AlreadyExists  ├── Unsupported  ├── StillNeeded
    │                                      └── BlobChanged 503
    └── ConfigError                  exit 1, never an answer
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar


class ImageServiceError(Exception):
    """An error with a sentence for the client; `status` is its HTTP status, `temporary` says a retry can succeed."""

    status: ClassVar[int] = 500
    temporary: ClassVar[bool] = False

    def __init__(self, message: str, *, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.headers: dict[str, str] = dict(headers or {})
        self.cure: str | None = None  # for the administrator, where the sentence says less; never for clients
        self.store: str | None = None  # the store that says so, once its name stands before the sentence
        self.problem: dict[str, str | int] = {}  # further members of the answer, as RFC 9457 has them


def _problem(name: str, **members: int) -> dict[str, str | int]:
    return {"type": f"https://iana.org/assignments/http-problem-types#{name}", **members}


class BadRequest(ImageServiceError):
    """The request itself is wrong; sending it again cannot help."""

    status = 400


class UrlRefused(BadRequest):
    """A URL that somebody gave, or where its server leads, may not be asked by this service."""


class WrongLength(BadRequest):
    """Lengths of an upload that contradict each other."""

    def __init__(self, message: str, *, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message, headers={"Upload-Complete": "?0", **(headers or {})})
        self.problem = _problem("inconsistent-upload-length")


class UploadEnded(BadRequest):
    """The upload has all its data already."""

    def __init__(self, message: str) -> None:
        super().__init__(message, headers={"Upload-Complete": "?1"})
        self.problem = _problem("completed-upload")


class Unauthorized(ImageServiceError):
    """No identity, or one that is not valid (any more)."""

    status = 401


class Forbidden(ImageServiceError):
    """A rule refuses this to this caller."""

    status = 403


class ReadOnlyField(Forbidden):
    """A field that only the service writes."""


class Protected(Forbidden):
    """The image is protected against deletion."""


class NotFound(ImageServiceError):
    """Unknown, or invisible to the caller: the two are never told apart."""

    status = 404


class NoSuchImage(NotFound):
    """The one answer for images that do not exist and for those that the caller cannot see."""

    def __init__(self, image_id: str) -> None:
        super().__init__(f"No image with the id {image_id} was found.")


class NoSuchNamespace(NotFound):
    """The same for namespaces of metadata definitions."""

    def __init__(self, name: str) -> None:
        super().__init__(f"No namespace '{name[:80]}' was found.")


class MethodNotAllowed(ImageServiceError):
    """The path is known, the method is not; the `Allow` header lists the methods."""

    status = 405


class Conflict(ImageServiceError):
    """The state of the image does not allow it."""

    status = 409


class Duplicate(Conflict):
    """The id, member or location is there already."""


class WrongOffset(Conflict):
    """A piece of an upload that does not begin where the last one ended."""

    def __init__(self, *, expected: int, provided: int) -> None:
        super().__init__(
            f"The upload has {expected} bytes, this piece begins at byte {provided}: send what begins at {expected}.",
            headers={"Upload-Offset": str(expected), "Upload-Complete": "?0"},
        )
        self.problem = _problem(
            "mismatching-upload-offset", **{"expected-offset": expected, "provided-offset": provided}
        )


class InUse(Conflict):
    """A store holds something (a clone, a snapshot) that depends on the data."""


class Gone(ImageServiceError):
    """The image was deleted while the request ran."""

    status = 410


class WriteDisabled(Gone):
    """This store never takes data (a read-only store)."""


class PreconditionFailed(ImageServiceError):
    """A condition that the client set (If-Match and its like) is not met; nothing was done."""

    status = 412


class TooLarge(ImageServiceError):
    """More than a limit allows."""

    status = 413


class QuotaExceeded(TooLarge):
    """More than the caller's quota allows."""


class StoreFull(TooLarge):
    """The store has no room for the data."""


class WrongMediaType(ImageServiceError):
    """The content type is not taken here."""

    status = 415


class FormatRefused(WrongMediaType):
    """The data is not what the image claims, or is dangerous whatever it claims (CVE-2024-32498, CVE-2022-47951)."""


class BadRange(ImageServiceError):
    """The byte range lies outside the data."""

    status = 416


class ExpectationFailed(ImageServiceError):
    """The client expects (`Expect`) what is not known here."""

    status = 417


class NoSuchMethod(ImageServiceError):
    """A method that no call has."""

    status = 501


class NoSuchCoding(ImageServiceError):
    """The body travels in a coding that is not undone here."""

    status = 501


class NoSuchVersion(ImageServiceError):
    """Another version of HTTP."""

    status = 505


class HeaderTooLarge(ImageServiceError):
    """A header is longer than allowed."""

    status = 431


class Unavailable(ImageServiceError):
    """Something the service needs does not answer now; the request may be sent again."""

    status = 503
    temporary = True


class StoreUnavailable(Unavailable):
    """A store does not answer, or not in time."""


class StoreRefused(StoreUnavailable):
    """A store answers and does not let us in: a wrong password, a right that is missing. Asking again cannot help."""

    temporary = False


class WriteDenied(Unavailable):
    """A store refuses writing: permissions, a read-only mount, a missing directory."""

    temporary = False


class CannotConvert(Unavailable):
    """This node converts no image: a program or its sandbox is missing. `cure` says which."""

    temporary = False


class IdentityUnavailable(Unavailable):
    """The identity service does not answer; nobody new can be let in."""


class DatabaseUnavailable(Unavailable):
    """The database does not answer."""


class DatabaseFull(DatabaseUnavailable):
    """The database has no room for the change; nothing of it is stored. Somebody has to make room."""


class BrokerUnavailable(Unavailable):
    """The message bus does not take or bring messages now."""


class SourceUnavailable(Unavailable):
    """The server of a URL cannot give the file now: it answers so (`answered`, its status), or broke off."""

    answered: int | None = None


class SourceSilent(SourceUnavailable):
    """The server of a URL says nothing, or too little in too much time."""


class SourceError(ImageServiceError):
    """What was to be fetched does not come from there as it is wanted; asking again in the same way cannot help."""

    status = 502


class SourceRefused(SourceError):
    """The server of a URL does not give the file (`answered`, its status), or something that is none."""

    answered: int | None = None


class SourceChanged(SourceError):
    """What has come so far cannot be gone on with: the file is another one now, or its server gives no parts of it.
    Whoever fetches may begin anew."""


class Unverified(SourceError):
    """What came is not what its publisher says: another digest, no line about the file, no signature that counts."""


class BlobError(ImageServiceError):
    """A store failed in a way that none of its other errors name."""


class BlobNotFound(BlobError):
    """A store has no data under this URL."""


class BlobChanged(BlobError):
    """The bytes under this URL are not those that the image was registered with; somebody has to look at them."""

    status = 503


class AlreadyExists(BlobError):
    """A store has data under this key already; it stays as it is."""

    status = 409


class Unsupported(BlobError):
    """A store cannot do this by design; its `can` flags said so."""

    status = 400


class StillNeeded(BlobError):
    """Deleted as far as clients can see; the bytes go later, when what depends on them (a clone) is gone. Whoever asked
    for the deletion keeps it pending and asks again."""

    status = 409


class ConfigError(ImageServiceError):
    """The configuration cannot be served as written; the message names the option, file and cure."""
