"""`xavs-ansible`: the verbs of a deployment, as a thin wrapper on the playbook. What is done stands in the playbook.

Two operators never deploy at once: the configuration directory is locked for the time of a run that changes something.
Exit codes: those of ansible-playbook; 1 for what is wrong before it is started; 2 wrong usage.
"""

import contextlib
import enum
import fcntl
import os
import shlex
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from xloud_image.errors import ConfigError

NAMES = ("xavs-ansible", "xloud-deploy")  # the second where a platform's own command has the first
TAGS = ("glance", "image")  # the second is a word that people try
LOCK = ".xavs-ansible.lock"
CONFIGDIR = Path("/etc/xavs")
NODES = "nodes"  # the inventory that the platform writes
GROUP = "glance-api"
ALL_IN_ONE = "all-in-one"  # the inventory of this machine alone


class Verb(enum.StrEnum):
    """What can be done."""

    DEPLOY = "deploy"
    RECONFIGURE = "reconfigure"
    PRECHECKS = "prechecks"
    GENCONFIG = "genconfig"
    VALIDATE_CONFIG = "validate-config"
    UPGRADE = "upgrade"
    STOP = "stop"
    DESTROY = "destroy"


_CHANGES = frozenset({Verb.DEPLOY, Verb.RECONFIGURE, Verb.UPGRADE, Verb.STOP, Verb.DESTROY, Verb.GENCONFIG})

app = typer.Typer(
    name="xavs-ansible",
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def place() -> Path:
    """The folder of the playbook: beside the sources, or where the package was installed."""
    for folder in (Path(__file__).parents[2] / "deploy", Path(sysconfig.get_path("data")) / "share/xloud-image/deploy"):
        if (folder / "site.yml").is_file():
            return folder
    raise ConfigError("the playbook is missing: install the package anew")


@app.command()
def run(
    verb: Annotated[Verb, typer.Argument(help="What to do.")],
    *,
    inventory: Annotated[
        str,
        typer.Option(
            "-i",
            "--inventory",
            metavar="INVENTORY",
            help="Hosts; by default the file `nodes` beside the globals, without it this machine alone.",
        ),
    ] = "",
    configdir: Annotated[
        Path, typer.Option(metavar="DIRECTORY", help="globals.yml, passwords.yml, globals.d/ and config/ (overrides).")
    ] = CONFIGDIR,
    extra: Annotated[
        list[str] | None, typer.Option("-e", "--extra", metavar="NAME=VALUE", help="A key of the globals; or @FILE.")
    ] = None,
    tags: Annotated[str, typer.Option("-t", "--tags", help="glance: the image service is all there is here.")] = "",
    limit: Annotated[str, typer.Option("--limit", metavar="HOSTS", help="Only these of the inventory.")] = "",
    check: Annotated[bool, typer.Option("--check", help="Change nothing, say what would change.")] = False,
    diff: Annotated[bool, typer.Option("--diff", help="Show the lines that change; secrets masked.")] = False,
    vault_password_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            envvar="ANSIBLE_VAULT_PASSWORD_FILE",
            help="The password of what ansible-vault encrypted, or a program that prints it.",
        ),
    ] = None,
    verbose: Annotated[int, typer.Option("-v", "--verbose", count=True, help="More of Ansible's words.")] = 0,
    meant: Annotated[
        bool, typer.Option("--yes-i-really-really-mean-it", help="destroy removes the images of the file store.")
    ] = False,
) -> None:
    """Deploy the image service from /etc/xavs/globals.yml, change it, check it, stop it.

    deploy and reconfigure do the same: whatever differs from the globals is made so, one node after the other; a second
    run changes nothing. prechecks and validate-config change nothing; genconfig only renders the files on this machine.

        xavs-ansible deploy --tags glance

        xavs-ansible reconfigure --tags glance --check --diff

        xavs-ansible -i multinode --configdir ./site prechecks
    """
    wrong = [tag for tag in filter(None, (part.strip() for part in tags.split(","))) if tag not in TAGS]
    if wrong:
        raise typer.BadParameter(f"'{wrong[0]}' is no tag that is deployed here; glance is", param_hint="--tags")
    if verb is Verb.DESTROY and not meant:
        raise ConfigError("destroy removes every image of the file store; say --yes-i-really-really-mean-it")
    folder = place()
    configdir = configdir.absolute()
    if not (configdir / "globals.yml").is_file():
        raise ConfigError(
            f"{configdir / 'globals.yml'} does not exist; two lines are enough: "
            'glance_backend_file: "yes", kolla_internal_vip_address: ADDRESS. Or name another --configdir'
        )
    vault: list[str] = ["--vault-password-file", str(vault_password_file.absolute())] if vault_password_file else []
    words = [*_playbook(folder, inventory, configdir, verb, vault), *vault]
    if vault:
        words += ["-e", _as_json({"xavs_vault_password_file": vault[1]})]
    for text in extra or ():
        words += ["-e", f"@{Path(text[1:]).absolute()}" if text.startswith("@") else text]
    words += ["-e", _as_json({"xavs_extra": [_absolute(text) for text in extra or ()]})]
    words += (
        ["--limit", limit] * bool(limit)
        + ["--check"] * check
        + ["--diff"] * diff
        + ["-" + "v" * verbose] * bool(verbose)
    )
    if verb is Verb.DESTROY:
        words += ["-e", _as_json({"xavs_destroy_confirmed": True})]
    with _alone(configdir, verb if verb in _CHANGES and not check else None):
        raise typer.Exit(_start(words, folder))


def _playbook(folder: Path, inventory: str, configdir: Path, verb: Verb, vault: list[str]) -> list[str]:
    program = Path(sys.executable).with_name("ansible-playbook")
    if not program.exists():
        raise ConfigError("ansible-playbook is not installed here; type: pip install 'xloud-image[deploy]'")
    hosts = _inventory(folder, inventory, configdir)
    if "," not in hosts and not Path(hosts).exists():
        raise ConfigError(f"the inventory {hosts} does not exist; all-in-one and multinode are shipped in {folder}")
    typer.echo(f"inventory: {hosts}", err=True)
    if Path(hosts) != folder / "inventory" / ALL_IN_ONE:  # that one is known; to ask takes half a second
        _has_nodes([str(program.with_name("ansible-inventory")), *vault], hosts, folder)
    facts = {
        "xavs_action": str(verb),
        "xavs_configdir": str(configdir),
        "xavs_render_command": str(Path(sys.executable).with_name("xloud-image")),
    }
    return [str(program), "-i", hosts, str(folder / "site.yml"), "-e", _as_json(facts)]


def _inventory(folder: Path, asked: str, configdir: Path) -> str:
    """Whose hosts are meant: those that were named, else those that the platform wrote beside the globals."""
    shipped = folder / "inventory" / (asked or ALL_IN_ONE)
    if not asked and (configdir / NODES).exists():
        return str(configdir / NODES)
    if (not asked or not Path(asked.rstrip(",")).exists()) and shipped.is_file():
        return str(shipped)
    return asked


def _has_nodes(program: list[str], hosts: str, folder: Path) -> None:
    """`program`: ansible-inventory, with the password of what is encrypted beside the inventory.

    ConfigError when no host of an inventory is to run the service: Ansible would do nothing, and call it done."""
    import json

    done = subprocess.run(
        [*program, "-i", hosts, "--list"],
        env={**os.environ, "ANSIBLE_CONFIG": str(folder / "ansible.cfg")},
        capture_output=True,
        text=True,
        check=False,
    )
    try:
        groups = json.loads(done.stdout)
    except ValueError:
        raise ConfigError(f"the inventory {hosts} cannot be read: {done.stderr.strip()[-300:]}") from None

    def members(group: str, seen: frozenset[str]) -> set[str]:
        found = groups.get(group) or {}
        deeper = (members(child, seen | {group}) for child in found.get("children", ()) if child not in seen)
        return set(found.get("hosts", ())).union(*deeper)

    if not members(GROUP, frozenset()):
        raise ConfigError(
            f"the inventory {hosts} has no host in the group {GROUP}, so nothing would be done; add the lines "
            f"[{GROUP}:children] and control, or name another inventory with -i"
        )


def _as_json(values: object) -> str:
    import json

    return json.dumps(values)


def _absolute(text: str) -> str:
    return f"@{Path(text[1:]).absolute()}" if text.startswith("@") else text


@contextlib.contextmanager
def _alone(configdir: Path, verb: Verb | None) -> Iterator[None]:
    """Nobody else changes this deployment meanwhile. The lock goes with the process, however that ends."""
    if verb is None:
        yield
        return
    path = configdir / LOCK
    try:
        file = path.open("a+")
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            raise ConfigError(
                f"somebody else is at work on {configdir} ({file.read().strip() or '?'}); wait until that run ends"
            ) from None
        file.truncate(0)
        file.write(
            f"{verb}, process {os.getpid()}, user {os.environ.get('SUDO_USER') or os.environ.get('USER', '?')}\n"
        )
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)


def _start(words: list[str], folder: Path) -> int:
    environment = {**os.environ, "ANSIBLE_CONFIG": str(folder / "ansible.cfg")}
    if os.environ.get("XAVS_SHOW_COMMAND"):
        typer.echo(shlex.join(words))
    process = subprocess.Popen(words, env=environment)
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:  # it has heard Ctrl-C as well, and cleans up
            continue


def main() -> None:
    """Run the command line of this process, under either of its names; never returns."""
    name = Path(sys.argv[0]).name
    name = name if name in NAMES else NAMES[0]
    try:
        app(prog_name=name)
    except ConfigError as error:
        sys.stderr.write(f"{name}: {error.message}\n")
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
