"""What the file store says when the system refuses: to clients what happened, to the administrator what to type."""

from __future__ import annotations

import errno
import logging
import os
import shlex

from xloud_image.errors import ImageServiceError, StoreFull, StoreRefused, StoreUnavailable, WriteDenied
from xloud_image.stores.disk.system import IsLink

_log = logging.getLogger(__name__)


def reason(error: OSError) -> str:
    """The system's words without any path."""
    return (error.strerror or type(error).__name__).lower()


def cure(store: str, path: str, error: OSError) -> ImageServiceError:
    """The error for the administrator: one sentence with the command to type. `path` is the store's directory."""
    user, group, place = os.geteuid(), os.getegid(), shlex.quote(path)
    make = f"'install -d -o {user} -g {group} -m 750 {place}'"
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT | errno.EFBIG:
            quota = ", 'quota -s'" if error.errno == errno.EDQUOT else ", 'ulimit -f'" * (error.errno == errno.EFBIG)
            return StoreFull(
                f"store {store}: {path} is full ({reason(error)}): look with 'df -h {place}'{quota}, then free space"
                " there or enlarge it"
            )
        case errno.ENOENT:
            return WriteDenied(f"store {store}: {path} does not exist: mount it, or make it with {make}")
        case errno.ENOTDIR:
            return WriteDenied(
                f"store {store}: {path} is not a directory: move what is there away and make it with {make}"
            )
        case errno.EROFS:
            return WriteDenied(
                f"store {store}: {path} is mounted read-only: mount it for writing with"
                f" 'mount -o remount,rw \"$(findmnt -n -o TARGET -T {place})\"'"
            )
        case errno.EACCES | errno.EPERM:
            return WriteDenied(
                f"store {store}: user {user} may not write in {path}: hand it over with"
                f" 'chown -R {user}:{group} {place}' (and see that each directory above it may be entered)"
            )
        case errno.EMFILE | errno.ENFILE:
            return StoreUnavailable(
                f"store {store}: {reason(error)}: raise the limit of open files with 'ulimit -n' where the service"
                " is started"
            )
    return StoreUnavailable(
        f"store {store}: {path} does not work ({reason(error)}): look whether it answers with 'ls {place}'"
    )


def link(store: str, path: str, error: IsLink) -> ImageServiceError:
    """The error for a file that is a link: where it leads is told to the administrator alone."""
    place = shlex.quote(f"{path}/{error.filename}")
    target = shlex.quote(str(error.filename2))
    _log.error(
        "store %s: %s/%s is a link to %s, and links to single files are not followed: put the file in its place with"
        " 'cp --remove-destination --preserve=all %s %s', or name the directory that holds it in"
        " filesystem_store_datadirs and correct the image's location",
        store, path, error.filename, error.filename2, target, place,
    )  # fmt: skip
    return StoreRefused(
        f"store {store}: the file is a link to another place, and links to single files are not followed;"
        " its administrator finds the two in the service's log"
    )


def refusal(store: str, path: str, error: OSError) -> ImageServiceError:
    """The same error for a client, who learns no path; the cure goes to the log."""
    told = cure(store, path, error)
    _log.error("%s", told.message)
    if isinstance(told, StoreFull):
        return StoreFull(
            f"store {store} is full: it has no room for this data; put it into another store, or ask for room there"
        )
    if isinstance(told, WriteDenied):
        return WriteDenied(
            f"store {store} takes no data now ({reason(error)}); its administrator finds the cure in the service's"
            " log and by 'xloud-image stores check'"
        )
    return StoreUnavailable(f"store {store} does not work now ({reason(error)})")
