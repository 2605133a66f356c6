"""Taking secrets out of text that people and logs will see. What is a secret by its name is known to the options.

Clients write what is masked here, also those without a login: all of it takes time in proportion to the length of the
text, whatever the text is.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import unquote_plus

MASK: Final = "***"
CLIPPED: Final = 1024
_TELLING: Final = ("passw", "pwd", "secret", "token", "key", "signature", "credential")
# characters may stand encoded, also several times over, when one address is carried within another
_TIMES: Final = 4
_PERCENT: Final = f"%(?:25){{0,{_TIMES}}}"
_WORD: Final = re.compile(r"(\s+)")
_ENCODED_SCHEME: Final = re.compile(rf"(?:{_PERCENT}3a|:)(?:{_PERCENT}2f|/){{2}}", re.IGNORECASE)
_ENCODED_END: Final = re.compile(rf"[:/?#@]|{_PERCENT}(?:3a|2f|3f|23|40)", re.IGNORECASE)
_ENCODED_AT: Final = re.compile(rf"{_PERCENT}40", re.IGNORECASE)
_END: Final = re.compile(r"[:/?#@]")
_EQUALS: Final = re.compile(rf"(=|{_PERCENT}3d)", re.IGNORECASE)


def mask(text: str) -> str:
    """The text without passwords of URLs and secrets of queries; what is masked already stays as it is.

    A secret goes on to the last @ of its word (a password may hold an @ or a slash), that of a query to the next & or
    blank.
    """
    addresses = "://" in text or "%" in text
    queries = "=" in text or "%" in text
    if not addresses and not queries:
        return text
    words = _WORD.split(text)
    for place in range(0, len(words), 2):
        word = words[place]
        if addresses:
            word = _without_password(word)
        if queries:
            word = _without_named(word)
        words[place] = word
    return "".join(words)


def clipped(text: str) -> str:
    """What a client wrote, as a line of the log shall have it: without secrets, at most CLIPPED characters of it."""
    # masked before it is cut: what makes a secret known may stand behind the cut
    return text if len(text) <= CLIPPED else f"{mask(text)[:CLIPPED]}…"


def _without_password(word: str) -> str:
    if "://" in word and (at := word.rfind("@")) > 0:
        start = word.find("://")
        while 0 <= start < at:
            end = _END.search(word, start + 3)
            if end is not None and end.start() < at and end.group() == ":" and start and _is_scheme(word[start - 1]):
                return f"{word[: end.end()]}{MASK}{word[at:]}"
            start = word.find("://", start + 3)
    if "%" not in word:
        return word
    last = word.rfind("@")
    for further in _ENCODED_AT.finditer(word, last + 1):
        last = further.start()
    for scheme in _ENCODED_SCHEME.finditer(word):
        if scheme.group() == "://":
            continue
        end = _ENCODED_END.search(word, scheme.end())
        if end is None or end.start() >= last:
            break
        if end.group()[-2:].lower() in (":", "3a"):
            return f"{word[: end.end()]}{MASK}{word[last:]}"
    return word


def _is_scheme(char: str) -> bool:
    return char.isalnum() or char == "_"


def _without_named(word: str) -> str:
    parts = word.split("&")
    for place, part in enumerate(parts):
        pieces = _EQUALS.split(part)
        # a name stands between ? or & and =; what comes before them is a path
        for number in range(0, len(pieces) - 1, 2):
            name = pieces[number]
            for _ in range(_TIMES):
                if "%" not in name:
                    break
                name = unquote_plus(name)
            if not place or number:
                begins = min((at for at in (name.find("?"), name.find("&")) if at >= 0), default=-1)
                if begins < 0:
                    continue
                name = name[begins:]
            name = name.lower()
            if name.endswith("sig") or any(told in name for told in _TELLING):
                parts[place] = f"{''.join(pieces[: number + 2])}{MASK}"
                break
    return "&".join(parts)
