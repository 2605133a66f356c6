"""Signatures of OpenPGP, checked by `gpgv` against keys that an operator keeps in a file. Nothing is fetched here.

`gpgv` is a process of its own, with little memory and time; it asks nobody, sees the signed text, the signature and the
keys as files in memory, and writes nowhere else. It believes every key of the file; a signature counts when it is good
by one of them that is neither expired nor revoked, and when no other one is bad.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import os
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from xloud_image.errors import ConfigError, Unavailable, Unverified

_SECONDS: Final = 20.0
_MEMORY: Final = 512 << 20  # bytes of addresses
_WRITES: Final = 4 << 20  # bytes
_ARMOR: Final = b"-----BEGIN PGP PUBLIC KEY BLOCK-----"
_END: Final = b"-----END PGP PUBLIC KEY BLOCK-----"
_CLEAR: Final = b"-----BEGIN PGP SIGNED MESSAGE-----"
_SIGNATURE: Final = b"-----BEGIN PGP SIGNATURE-----"


def is_clear_signed(data: bytes) -> bool:
    """Whether a text has its signature around it."""
    return data.lstrip().startswith(_CLEAR)


def unsigned(data: bytes) -> bytes:
    """The text within a signature around it, unchecked: for those who have no keys."""
    head, _, rest = data.replace(b"\r\n", b"\n").partition(b"\n\n")
    text, mark, _ = rest.partition(b"\n" + _SIGNATURE)
    if not mark or not is_clear_signed(head):
        raise Unverified("the file of checksums begins as if it were signed, and its signature is missing")
    return b"".join(line.removeprefix(b"- ") for line in text.splitlines(keepends=True))


async def verified(data: bytes, signature: bytes | None, keyring: Path) -> bytes:
    """The text that is signed: `data` with a `signature` of its own, or what stands within the signature around it.

    `keyring`: public keys, as `gpg --export` writes them with or without armor, or a keybox. `Unverified`;
    `ConfigError` when the keys cannot be read or `gpgv` is missing.
    """
    try:
        keys = _bare(await asyncio.to_thread(keyring.read_bytes))
    except (OSError, binascii.Error) as error:
        raise ConfigError(f"the keys in {keyring} cannot be read: {error}") from error
    given = [data] if signature is None else [signature, data]
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(_in_memory(one)) for one in (keys, *given, b"")]
        names = [f"/proc/self/fd/{number}" for number in files]
        output = ["--output", names[-1]] if signature is None else []
        words = ["gpgv", "--weak-digest", "SHA1", "--status-fd", "1", "--keyring", names[0], *output, *names[1:-1]]
        status = await _run(words, files)
        said = [line.split()[1] for line in status.splitlines() if line.startswith("[GNUPG:] ")]
        if "BADSIG" in said or not {"GOODSIG", "VALIDSIG"} <= set(said):
            raise Unverified(f"the checksums are not signed by a key that is known here: {_why(said)}")
        return data if signature is not None else os.pread(files[-1], len(data) + 1, 0)


async def _run(words: list[str], files: list[int]) -> str:
    """What `gpgv` says about the signatures."""
    try:
        process = await asyncio.create_subprocess_exec(
            *words,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            pass_fds=files,
            env={"PATH": os.environ.get("PATH", os.defpath), "GNUPGHOME": "/nonexistent", "LC_ALL": "C"},
            cwd="/",
        )
    except OSError as error:
        raise ConfigError(f"signatures of checksums are checked by gpgv, which does not start: {error}") from error
    try:
        with contextlib.suppress(ProcessLookupError):
            for what, most in (
                (resource.RLIMIT_AS, _MEMORY),
                (resource.RLIMIT_CPU, int(_SECONDS)),
                (resource.RLIMIT_FSIZE, _WRITES),
            ):
                resource.prlimit(process.pid, what, (most, most))
        async with asyncio.timeout(_SECONDS):
            status, _ = await process.communicate()
    except TimeoutError:
        raise Unavailable("gpgv did not come to an end") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return status.decode(errors="replace")


@contextlib.contextmanager
def _in_memory(data: bytes) -> Iterator[int]:
    """A file that is nowhere on disk; its number."""
    number = os.memfd_create("xloud-image")
    try:
        with open(number, "wb", closefd=False) as file:
            file.write(data)
        yield number
    finally:
        os.close(number)


def _bare(keys: bytes) -> bytes:
    """Keys as `gpgv` takes them, without armor."""
    if _ARMOR not in keys:
        return keys
    found = b""
    for block in keys.split(_ARMOR)[1:]:
        _, _, body = block.partition(_END)[0].replace(b"\r\n", b"\n").partition(b"\n\n")
        lines = [line for line in body.split(b"\n") if not line.startswith(b"=")]  # that one is a sum of the others
        found += base64.b64decode(b"".join(lines), validate=True)
    return found


def _why(said: list[str]) -> str:
    for word, text in (
        ("BADSIG", "a signature does not fit"),
        ("EXPKEYSIG", "the key has expired"),
        ("REVKEYSIG", "the key was revoked"),
        ("EXPSIG", "the signature has expired"),
        ("NO_PUBKEY", "the key is not among those of the operator"),
        ("NODATA", "there is no signature"),
    ):
        if word in said:
            return text
    return "there is no signature that counts"
