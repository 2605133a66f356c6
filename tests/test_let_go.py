"""What an aborted request held goes at once; the collector would stop the loop for all that it finds together."""

import gc
import weakref

from xloud_image.api import connections


class _Held:
    """What a request holds."""


def _broken(gone: list[weakref.ref[_Held]]) -> BaseException:
    held = _Held()
    gone.append(weakref.ref(held))
    try:
        try:
            raise ConnectionResetError("the client")
        except ConnectionResetError as first:
            cause = first  # a circle: the frame holds the error that holds the frame
            raise ValueError from cause
    except ValueError as error:
        kept = error
        kept.__cause__ = kept
        return kept


def test_what_an_aborted_request_held_is_gone_without_the_collector() -> None:
    gone: list[weakref.ref[_Held]] = []
    gc.collect()
    gc.disable()
    try:
        error = _broken(gone)
        assert gone[0]() is not None
        connections.let_go(error)
        assert gone[0]() is None
    finally:
        gc.enable()
