"""The errors that every store raises in the same words. `store`: its name."""

from __future__ import annotations

from xloud_image.errors import AlreadyExists, BlobNotFound, Gone


def no_data(store: str) -> BlobNotFound:
    """Nothing is there under this URL."""
    return BlobNotFound(f"store {store} has no such data")


def key_taken(store: str) -> AlreadyExists:
    """Somebody has written this key before."""
    return AlreadyExists(f"store {store} has data under this key already")


def was_discarded(store: str) -> Gone:
    """`discard` took the data of a write that still runs."""
    return Gone(f"store {store}: the data was discarded while it was being written")
