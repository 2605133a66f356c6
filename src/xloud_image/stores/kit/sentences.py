"""The errors that every store raises in the same words."""

from __future__ import annotations

from xloud_image.errors import AlreadyExists, BlobNotFound, Gone


def no_data() -> BlobNotFound:
    """Nothing is there under this URL."""
    return BlobNotFound("it has no such data")


def key_taken() -> AlreadyExists:
    """Somebody has written this key before."""
    return AlreadyExists("it has data under this key already")


def was_discarded() -> Gone:
    """`discard` took the data of a write that still runs."""
    return Gone("the data was discarded while it was being written")
