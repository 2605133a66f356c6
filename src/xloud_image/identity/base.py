"""What every way of identity promises. Which way is in force is chosen in `identity`."""

from __future__ import annotations

import abc
from typing import TYPE_CHECKING, Any

from xloud_image.errors import Unauthorized
from xloud_image.identity.context import Context

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from xloud_image.policy import Policy

# Without credentials, where that is allowed. The two roles are those for which the rules of reading ask by default;
# every rule that changes something refuses a read-only caller before it looks at roles.
ANONYMOUS = Context(roles=frozenset({"reader", "member"}), read_only=True)


class Identity(abc.ABC):
    """Tells who asks. One per process, made before and started after the fork."""

    def __init__(self, policy: Policy, *, anonymous: bool = False, challenge: str = "") -> None:
        """`challenge`: the header WWW-Authenticate of a 401 answer."""
        self._policy = policy
        self._anonymous = anonymous
        self._challenge = {"WWW-Authenticate": challenge}

    async def start(self) -> None:
        """Open what is needed; never waits for another server."""

    async def aclose(self) -> None:
        """Close it; may be called without `start`, and twice."""

    async def catalogue(self) -> Sequence[Mapping[str, Any]]:
        """The services of the cloud as Keystone v3 lists them; none without it. IdentityUnavailable."""
        return ()

    @abc.abstractmethod
    async def authenticate(
        self,
        headers: Mapping[str, str],
        *,
        method: str | None = None,
        path: str | None = None,
        address: str | None = None,
    ) -> Context:
        """The caller of a request with these headers (a mapping that ignores case, or has the usual
        spelling).

        `method` and `path` are the request's, for credentials that are good for some calls only; without them
        such credentials are refused. `address` is the client's: one shall not take up what all need.
        Raises Unauthorized (with the challenge), Forbidden (known, but tied to no project),
        IdentityUnavailable (nobody can tell now).
        """

    def _without_credentials(self) -> Context:
        """A request without any: read-only where that is allowed, else Unauthorized."""
        if not self._anonymous:
            raise self._refused("The request needs authentication.")
        return ANONYMOUS

    def _refused(self, sentence: str) -> Unauthorized:
        return Unauthorized(sentence, headers=self._challenge)
