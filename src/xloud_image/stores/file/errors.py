"""What the file store says when the system refuses: to clients what happened, to the administrator what to type."""

from __future__ import annotations

import errno
import os
import shlex

from xloud_image.errors import ImageServiceError, StoreFull, StoreRefused, StoreUnavailable, WriteDenied
from xloud_image.stores.file.syscalls import IsLink


def reason(error: OSError) -> str:
    """The system's words without any path."""
    return (error.strerror or type(error).__name__).lower()


def cure(path: str, error: OSError) -> ImageServiceError:
    """The error for the administrator: one sentence with the command to type. `path` is the store's directory."""
    user, group, place = os.geteuid(), os.getegid(), shlex.quote(path)
    make = f"'install -d -o {user} -g {group} -m 750 {place}'"
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT | errno.EFBIG:
            quota = ", 'quota -s'" if error.errno == errno.EDQUOT else ", 'ulimit -f'" * (error.errno == errno.EFBIG)
            return StoreFull(
                f"{path} is full ({reason(error)}): look with 'df -h {place}'{quota}, then free space"
                " there or enlarge it"
            )
        case errno.ENOENT:
            return WriteDenied(f"{path} does not exist: mount it, or make it with {make}")
        case errno.ENOTDIR:
            return WriteDenied(f"{path} is not a directory: move what is there away and make it with {make}")
        case errno.EROFS:
            return WriteDenied(
                f"{path} is mounted read-only: mount it for writing with"
                f" 'mount -o remount,rw \"$(findmnt -n -o TARGET -T {place})\"'"
            )
        case errno.EACCES | errno.EPERM:
            return WriteDenied(
                f"user {user} may not write in {path}: hand it over with"
                f" 'chown -R {user}:{group} {place}' (and see that each directory above it may be entered)"
            )
        case errno.EMFILE | errno.ENFILE:
            return StoreUnavailable(
                f"{reason(error)}: raise the limit of open files with 'ulimit -n' where the service is started"
            )
    return StoreUnavailable(f"{path} does not work ({reason(error)}): look whether it answers with 'ls {place}'")


def link(path: str, error: IsLink) -> ImageServiceError:
    """The error for a file that is a link: where it leads is told to the administrator alone."""
    place, target = f"{path}/{error.filename}", str(error.filename2)
    answer = StoreRefused(
        "the file is a link to another place, and links to single files are not followed;"
        " its administrator finds the two in the service's log"
    )
    return _told(
        answer,
        f"{place} is a link to {target}, and links to single files are not followed: put the file in its"
        f" place with 'cp --remove-destination --preserve=all {shlex.quote(target)} {shlex.quote(place)}', or name the"
        " directory that holds it in filesystem_store_datadirs and correct the image's location",
    )


def unreadable(path: str, error: OSError) -> ImageServiceError:
    """The error for data that cannot be read now; the cure goes to the log."""
    answer = StoreUnavailable(f"it cannot read its data now ({reason(error)})")
    return _told(answer, cure(path, error).message)


def refusal(path: str, error: OSError) -> ImageServiceError:
    """The same error for a client, who learns no path; the cure goes to the log."""
    told = cure(path, error)
    answer: ImageServiceError
    if isinstance(told, StoreFull):
        answer = StoreFull("it is full: it has no room for this data; put it into another store, or ask for room there")
    elif isinstance(told, WriteDenied):
        answer = WriteDenied(
            f"it takes no data now ({reason(error)}); its administrator finds the cure in the service's"
            " log and by 'xloud-image stores check --deep'"
        )
    else:
        answer = StoreUnavailable(f"it does not work now ({reason(error)})")
    return _told(answer, told.message)


def _told(answer: ImageServiceError, to_the_administrator: str) -> ImageServiceError:
    answer.cure = to_the_administrator
    return answer
