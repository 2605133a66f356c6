"""What kolla-ansible expects of a container: files copied from where it renders them, the words by which it makes
tables, its questions whether anything has changed and whether the service answers. Its container of Glance is exchanged
by one line of its globals, `glance_api_image_full`, and comes back when that line goes.

Only the container image `kolla` (deploy/Containerfile) has these commands. It starts as root, because root alone may
read what kolla-ansible renders, and is the service's user before anything of the service runs.
"""

import dataclasses
import glob
import json
import os
import pwd
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, NoReturn

RENDERED: Final = Path("/var/lib/kolla/config_files")
CONFIGURATION: Final = Path("/etc/glance")
LOGS: Final = Path("/var/log/kolla/glance")
BUNDLE: Final = Path("/etc/ssl/certs/ca-certificates.crt")
USER: Final = "glance"
PROGRAM: Final = Path("/opt/xloud-image/bin/xloud-image")
_CONFIG: Final = ("--config-dir", str(CONFIGURATION))
_ONLY: Final = frozenset({"KOLLA_BOOTSTRAP", "KOLLA_UPGRADE", "KOLLA_UPGRADE_CHECK"})  # the service is not started
PATIENCE: Final = 10  # seconds for an answer to the health check


class Refused(Exception):
    """What kolla-ansible rendered cannot be used; a sentence."""


@dataclasses.dataclass(frozen=True)
class Entry:
    """A file or directory of config.json. `owner`: name or name:group; `mode`: None as the source has it."""

    source: str
    target: str
    owner: str | None
    mode: int | None
    optional: bool

    def pairs(self) -> Iterator[tuple[Path, Path]]:
        """Each file with its place in the container; sources may be patterns. `Refused`: there is none."""
        found = sorted(glob.glob(self.source))
        if not found and not self.optional:
            raise Refused(f"{self.source} does not exist")
        for name in found:
            source = Path(name)
            target = Path(self.target) / source.name if self.target.endswith("/") else Path(self.target)
            if source.is_dir():
                below = (one for one in sorted(source.rglob("*")) if one.is_file())
                yield from ((one, target / one.relative_to(source)) for one in below)
            else:
                yield source, target

    def properties(self, source: Path) -> tuple[int, int, int]:
        """User, group and mode that the copy has."""
        there = source.stat()
        user, group = (there.st_uid, there.st_gid) if self.owner is None else _account(self.owner)
        return user, group, there.st_mode & 0o7777 if self.mode is None else self.mode


def entries(rendered: Path = RENDERED) -> list[Entry]:
    """What config.json names. `Refused`: it is missing, or not of the form that kolla has."""
    file = rendered / "config.json"
    try:
        told: Any = json.loads(file.read_bytes())
        return [_entry(one) for one in told.get("config_files", ())]
    except OSError as error:
        raise Refused(f"{file} cannot be read ({error.strerror}): is this started by kolla?") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Refused(f"{file} is not of kolla's form ({error})") from None


def _entry(told: dict[str, Any]) -> Entry:
    kept = bool(told.get("preserve_properties"))
    return Entry(
        str(told["source"]),
        str(told["dest"]),
        None if kept else str(told["owner"]),
        None if kept else int(str(told["perm"]), 8),
        bool(told.get("optional")),
    )


def _account(owner: str) -> tuple[int, int]:
    user, _, group = owner.partition(":")
    found = pwd.getpwnam(user)
    return found.pw_uid, found.pw_gid if not group or group == user else _group(group)


def _group(name: str) -> int:
    import grp

    return grp.getgrnam(name).gr_gid


def copy(entry: Entry) -> None:
    """Its files are in their places, whole, and only then under their names."""
    for source, target in entry.pairs():
        user, group, mode = entry.properties(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        fresh = target.with_name(f".{target.name}.new")
        fresh.unlink(missing_ok=True)
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(source.read_bytes())
            os.fchown(file.fileno(), user, group)
            os.fchmod(file.fileno(), mode)
        fresh.rename(target)


def is_current(entry: Entry) -> bool:
    """Whether each copy is as its source, in content, owner and mode."""
    for source, target in entry.pairs():
        try:
            there = target.stat()
            if (there.st_uid, there.st_gid, there.st_mode & 0o7777) != entry.properties(source):
                return False
            if target.read_bytes() != source.read_bytes():
                return False
        except OSError:
            return False
    return True


def set_configs() -> NoReturn:
    """`kolla_set_configs [--check]`: copy; or only ask, and 1 says that kolla-ansible is to make the container anew."""
    if "--check" in sys.argv[1:]:
        sys.exit(_run(lambda: 0 if all(is_current(one) for one in entries()) else 1))
    sys.exit(_run(_copy_all))


def healthcheck() -> NoReturn:
    """`healthcheck_curl URL`: whether it answers with less than 400; of curl's options none."""
    import urllib.request

    try:
        with urllib.request.urlopen(sys.argv[-1], timeout=PATIENCE) as answer:  # noqa: S310 - the operator's own
            sys.exit(_say(str(answer.status), 0))
    except (OSError, ValueError) as error:
        sys.exit(_say(f"healthcheck_curl: {error}", 1))


def start() -> NoReturn:
    """`kolla_start`: what kolla-ansible starts this container for, by the environment that it gives."""
    if (code := _run(_prepare)) or not _ONLY.isdisjoint(os.environ):
        sys.exit(code)
    # the service is the container's first process
    os.execv(PROGRAM, [str(PROGRAM), "serve", *_CONFIG])  # noqa: S606


def _prepare() -> int:
    """Everything before the service: files, rights, tables."""
    _copy_all()
    _require_no_tls()
    _trust(RENDERED / "ca-certificates")
    user = pwd.getpwnam(USER)
    for path in (LOGS, Path("/var/lib/glance")):
        path.mkdir(parents=True, exist_ok=True)
        os.chown(path, user.pw_uid, user.pw_gid)
    os.setgroups([])
    os.setgid(user.pw_gid)
    os.setuid(user.pw_uid)
    os.environ |= {"HOME": user.pw_dir, "USER": USER}
    # what is already so is left so; of several nodes one does it
    code = subprocess.run([PROGRAM, "db", "upgrade", *_CONFIG], check=False).returncode
    if not code and "KOLLA_BOOTSTRAP" in os.environ:
        code = subprocess.run([PROGRAM, "metadefs", "load", *_CONFIG], check=False).returncode
    if not code and "KOLLA_UPGRADE_CHECK" in os.environ:
        code = subprocess.run([PROGRAM, "db", "check", *_CONFIG], check=False).returncode
    return code


def _copy_all() -> int:
    for one in entries():
        copy(one)
    return 0


def _require_no_tls() -> None:
    """`Refused` where the balancer would speak TLS to us: a proxy of its own would have to do that."""
    for file in CONFIGURATION.glob("*uwsgi.ini"):
        lines = file.read_text(errors="replace").splitlines()
        if any(line.partition("=")[0].strip() == "https" for line in lines):
            raise Refused("TLS behind the balancer is not served by this container: set glance_enable_tls_backend: no")


def _trust(authorities: Path) -> None:
    """The cloud's own authorities are trusted beside those that the container has."""
    files = sorted(authorities.rglob("*.crt")) if authorities.is_dir() else []
    if files:
        first = BUNDLE.with_name(f"{BUNDLE.name}.first")  # as the image had it: a second start adds nothing twice
        if not first.exists():
            BUNDLE.parent.mkdir(parents=True, exist_ok=True)
            BUNDLE.touch()
            shutil.copy(BUNDLE, first)
        BUNDLE.write_bytes(b"\n".join(file.read_bytes() for file in (first, *files)))


def _run(work: Callable[[], int]) -> int:
    try:
        return work()
    except (Refused, OSError, KeyError) as error:
        return _say(f"kolla: {error}", 2)


def _say(words: str, code: int) -> int:
    sys.stderr.write(f"{words}\n")
    return code
