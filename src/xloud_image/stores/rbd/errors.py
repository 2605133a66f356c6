"""What the rbd store says when Ceph refuses: to clients what happened, to the administrator what to type. No calls."""

from __future__ import annotations

import errno
from typing import Final

from xloud_image.errors import ImageServiceError, StoreFull, StoreUnavailable, WriteDenied
from xloud_image.stores.kit.sentences import no_data

TIMEOUT: Final = errno.ETIMEDOUT
# the cluster has shut this connection out, or lost it: a new one is needed
LOST: Final = frozenset({errno.ESHUTDOWN, errno.ENOTCONN})
_REFUSED: Final = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})


class Told(Exception):
    """A failure with the administrator's sentence; `number` is the errno that led to it."""

    def __init__(self, sentence: str, number: int) -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.number = number


class Taken(Exception):
    """There is an image, or a part of one in the trash, under this name."""


class Missing(Exception):
    """There is no image under this name."""


def number(error: BaseException) -> int:
    """The errno of an error of the bindings, of the system or of ours; 0 when it has none."""
    found = getattr(error, "number", None) or getattr(error, "errno", None)
    return abs(found) if isinstance(found, int) else 0


def caps(user: str, pool: str, *, data: str = "", clones: str | None = None) -> str:
    """The command that gives a user what the store needs; `data`: the pool of the bytes, where ceph.conf names one;
    `clones`: a pool whose clones it may look at."""
    more = f", profile rbd pool={data}" if data and data != pool else ""
    more += f", profile rbd-read-only pool={clones}" if clones else ""
    return (
        f"ceph auth caps client.{user} mon 'profile rbd' osd 'profile rbd pool={pool}{more}'"
        f" mgr 'profile rbd pool={pool}'"
    )


class Sentences:
    """The sentences of one store. `store`: its name, for logs; `conf`: as configured, "" where the library looks by
    itself."""

    def __init__(self, store: str, *, conf: str, user: str, pool: str) -> None:
        self.store, self.user, self.pool = store, user, pool
        self.conf = conf or "ceph.conf"
        self.data = ""  # rbd_default_data_pool, known from the first connection on

    def no_conf(self) -> str:
        return (
            f"{self.conf} cannot be read: put the cluster's ceph.conf there, readable for this"
            " service, or name another path in rbd_store_ceph_conf"
        )

    def deadly(self, why: str) -> str:
        files = f"{self.conf} or the keyring of client.{self.user}"
        return f"Ceph's library does not survive {files}: {why}"

    def unreadable(self, why: str) -> str:
        return f"Ceph's library does not understand {self.conf}: {why}"

    def prefixed(self) -> str:
        """What is wrong with a user that is called `client.…`."""
        name = self.user.removeprefix("client.")
        return f"leave 'client.' away in rbd_store_user (rbd_store_user = {name}): the library puts it there itself"

    def namespaced(self) -> str:
        """What is wrong with a pool that is called `POOL/NAMESPACE`."""
        pool = self.pool.partition("/")[0]
        return (
            "namespaces of a pool (POOL/NAMESPACE) are not used by this service, nor by Glance: name a pool alone in"
            f" rbd_store_pool (rbd_store_pool = {pool})"
        )

    def no_keyring(self, places: str) -> str:
        if self.user.startswith("client."):
            return f"no keyring of client.{self.user} among {places}: {self.prefixed()}"
        return (
            f"no keyring of client.{self.user} among {places}: write it there with"
            f" 'ceph auth get client.{self.user} -o FILE', readable for this service"
        )

    def wrong_key(self) -> str:
        if self.user.startswith("client."):
            return f"Ceph knows no client.{self.user}: {self.prefixed()}"
        return (
            f"Ceph refuses the key of client.{self.user}: put the one that 'ceph auth get"
            f" client.{self.user}' prints into its keyring (and see that the service may read that file)"
        )

    def unreachable(self, seconds: float, hosts: str) -> str:
        return (
            f"no monitor of Ceph answers within {seconds:g} seconds ({hosts or 'no mon_host'}): see"
            f" 'ceph -s' there, mon_host in {self.conf}, and the way from here to ports 3300 and 6789"
        )

    def no_pool(self) -> str:
        if "/" in self.pool:
            return f"pool {self.pool} does not exist: {self.namespaced()}"
        return (
            f"pool {self.pool} does not exist: make it with 'ceph osd pool create {self.pool}' and"
            f" 'rbd pool init {self.pool}', or name another one in rbd_store_pool"
        )

    def full(self) -> str:
        return (
            f"pool {self.pool} is full: look with 'ceph df detail', then delete, add disks, or"
            f" raise its quota with 'ceph osd pool set-quota {self.pool} max_bytes N'"
        )

    def forbidden(self) -> str:
        where = f"pool {self.pool}"
        if self.data and self.data != self.pool:
            where += f", or not in pool {self.data}, where rbd_default_data_pool of {self.conf} puts the bytes"
        return (
            f"client.{self.user} may not do this in {where}: give it its rights with"
            f' "{caps(self.user, self.pool, data=self.data)}"'
        )

    def no_data_pool(self) -> str:
        return (
            f"pool {self.data}, which rbd_default_data_pool of {self.conf} names, does not exist:"
            " make it, or remove that line"
        )

    def silent(self) -> str:
        return f"pool {self.pool} does not answer in time: see 'ceph -s' and 'ceph osd pool stats'"

    def other(self, error: BaseException) -> str:
        return f"Ceph failed: {error}"

    def cure(self, error: BaseException) -> ImageServiceError:
        """The error for the administrator, for anything that the bindings raise."""
        code = number(error)
        if isinstance(error, Told):
            sentence = error.sentence
        elif code in _FULL:
            sentence = self.full()
        elif code in _REFUSED:
            sentence = self.forbidden()
        elif code == TIMEOUT:
            sentence = self.silent()
        else:
            sentence = self.other(error)
        if code in _FULL:
            return StoreFull(sentence)
        if code in _REFUSED or (isinstance(error, Told) and code == errno.ENOENT):
            return WriteDenied(sentence)
        return StoreUnavailable(sentence)

    def answer(self, error: BaseException, *, writing: bool) -> ImageServiceError:
        """The same for a client, who learns no path; the cure goes to the log."""
        if isinstance(error, Missing):
            return no_data()
        told = self.cure(error)
        answer: ImageServiceError
        if isinstance(told, StoreFull):
            answer = StoreFull("it has no room for this data")
        elif isinstance(told, WriteDenied) and writing:
            answer = WriteDenied(
                "it takes no data now; its administrator finds the cure in the service's log and by"
                " 'xloud-image stores check --deep'"
            )
        else:
            reason = "does not answer in time" if number(error) == TIMEOUT else "does not work now"
            answer = StoreUnavailable(f"it {reason}; its administrator finds the cure in the service's log")
        answer.cure = told.message
        return answer
