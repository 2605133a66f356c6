"""Values and files that ansible-vault encrypted (format 1.1 and 1.2, AES256), opened with the operator's password.

Nothing is encrypted here, and no decrypted text is written anywhere but into the files of the node that need it.
"""

from __future__ import annotations

import dataclasses
import os
import subprocess
from binascii import Error as NoHex
from binascii import unhexlify
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, hmac, padding
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC

from xloud_image.errors import ConfigError

MARK: Final = "$ANSIBLE_VAULT"
_CURE: Final = "name the file with its password: --vault-password-file FILE, or ANSIBLE_VAULT_PASSWORD_FILE"


class Locked(Exception):
    """Why a text stays encrypted, and what to do."""


@dataclasses.dataclass(frozen=True, slots=True)
class Vault:
    """The password of a run, and where it came from."""

    path: Path
    password: bytes = dataclasses.field(repr=False)


def of_file(path: Path) -> Vault:
    """The password in a file, or that a program writes (a file that may be executed). ConfigError."""
    try:
        if os.access(path, os.X_OK) and path.is_file():
            done = subprocess.run([path.absolute()], stdout=subprocess.PIPE, check=True)
            text = done.stdout
        else:
            text = path.read_bytes()
    except (OSError, subprocess.CalledProcessError) as error:
        reason = getattr(error, "strerror", None) or "it ended with an error"
        raise ConfigError(f"the vault password file {path} cannot be used: {reason}") from None
    password = text.strip()
    if not password:
        raise ConfigError(f"the vault password file {path} is empty")
    return Vault(path, password)


def open_(text: str, vault: Vault | None) -> str:
    """The text that was encrypted. Locked: without the password, with another one, or when it was cut."""
    head, *lines = text.split() or [""]
    if not head:
        raise Locked("it is empty")
    if vault is None:
        raise Locked(_CURE)
    if head.split(";")[2:3] != ["AES256"]:
        raise Locked("it is no text of ansible-vault in AES256")
    try:
        salt, check, data = (unhexlify(part) for part in unhexlify("".join(lines)).split(b"\n", 2))
    except (NoHex, ValueError):
        raise Locked("it was cut or changed since") from None
    keys = PBKDF2HMAC(hashes.SHA256(), 80, salt, 10000).derive(vault.password)
    mac = hmac.HMAC(keys[32:64], hashes.SHA256())
    mac.update(data)
    try:
        mac.verify(check)
    except InvalidSignature:
        raise Locked(f"the password in {vault.path} is not its own") from None
    decryptor = Cipher(algorithms.AES(keys[:32]), modes.CTR(keys[64:80])).decryptor()
    unpadder = padding.PKCS7(128).unpadder()
    try:
        return (unpadder.update(decryptor.update(data) + decryptor.finalize()) + unpadder.finalize()).decode()
    except UnicodeDecodeError:
        raise Locked("what it holds is no UTF-8 text") from None
    except ValueError:
        raise Locked("it was cut or changed since") from None
