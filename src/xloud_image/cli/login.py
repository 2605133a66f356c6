"""Options of a login, as every OpenStack client has them: taken from anywhere in the line before it is read."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from xloud_image.client.cloud import Cloud

WORDS = frozenset({"images", "tasks"})  # the first words of commands that log in
_FLAGS = frozenset({"--insecure", "--verify"})
_options: list[str] = []


def take(words: Sequence[str]) -> list[str]:
    """The words of a command line without its `--os-…` options, which `cloud` uses. Of others all words."""
    if next((word for word in _without(words)[0] if not word.startswith("-")), None) not in WORDS:
        return list(words)
    rest, _options[:] = _without(words)
    return rest


def _without(words: Sequence[str]) -> tuple[list[str], list[str]]:
    rest: list[str] = []
    taken: list[str] = []
    left = list(words)
    while left:
        word = left.pop(0)
        if word == "--":
            rest += [word, *left]
            break
        if word in _FLAGS:
            taken.append(word)
        elif word.startswith("--os-"):
            taken.append(word)
            if "=" not in word and left:
                taken.append(left.pop(0))
        else:
            rest.append(word)
    return rest, taken


def cloud(name: str | None = None, *, region: str | None = None) -> "Cloud":
    """The image service that the line and the environment mean, or that of an entry of clouds.yaml; in another region.
    `ConfigError`: no way to log in."""
    from xloud_image.client.cloud import connect

    return connect(_options, cloud=name, region=region)
