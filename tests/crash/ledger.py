"""What clients were told, image by image: the promises that a crash must not break. No request is made here."""

import dataclasses
import hashlib
import random
import threading


@dataclasses.dataclass(frozen=True)
class Data:
    """Bytes that can be made again from their seed; only the digest is kept."""

    seed: str
    size: int
    sha256: str

    @classmethod
    def new(cls, seed: str, size: int) -> "Data":
        return cls(seed, size, hashlib.sha256(random.Random(seed).randbytes(size)).hexdigest())

    def bytes(self) -> bytes:
        return random.Random(self.seed).randbytes(self.size)


@dataclasses.dataclass
class Record:
    """One image. What was acknowledged, and beside it what was asked and never answered: `maybe_…`.

    `mark`: the value that one PATCH gives to two properties at once, 0 before the first.
    """

    id: str
    created: bool = False
    data: Data | None = None
    maybe_data: Data | None = None
    mark: int = 0
    maybe_mark: int | None = None
    deleted: bool = False
    maybe_deleted: bool = False
    members: frozenset[str] = frozenset()
    maybe_members: frozenset[str] = frozenset()

    def may_hold(self) -> list[Data]:
        """The data that it may have; acknowledged data leaves no choice."""
        if self.data is not None:
            return [self.data]
        return [self.maybe_data] if self.maybe_data is not None else []


class Ledger:
    """All records of a run. Each image belongs to one client, which asks one thing at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._records: dict[str, Record] = {}

    def open(self, image_id: str) -> Record:
        with self._lock:
            return self._records.setdefault(image_id, Record(image_id))

    @property
    def records(self) -> list[Record]:
        with self._lock:
            return list(self._records.values())
