"""Taking secrets out of text that people and logs will see. What is a secret by its name is known to the options."""

from __future__ import annotations

import re
from typing import Final

MASK: Final = "***"
# greedy up to the last @ of a word: a password may hold an @ or a slash
_URL_PASSWORD: Final = re.compile(r"(\w://[^:/?#@\s]*:)[^\s]*(@)")
_NAMED_SECRET: Final = re.compile(r"([?&][^=&\s]*(?:passw|secret|token|key)[^=&\s]*=)[^&\s]*", re.IGNORECASE)


def mask(text: str) -> str:
    """The text without passwords of URLs and secrets of queries."""
    if "://" not in text and "=" not in text:
        return text
    return _NAMED_SECRET.sub(rf"\1{MASK}", _URL_PASSWORD.sub(rf"\1{MASK}\2", text))
