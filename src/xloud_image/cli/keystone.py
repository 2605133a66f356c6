"""`xloud-image keystone …`: the service's place in Keystone."""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from xloud_image.cli.options import ConfigDirs, ConfigFiles, load

if TYPE_CHECKING:
    from xloud_image.config.settings import KeystoneSettings

app = typer.Typer(no_args_is_help=True, help="The service's place in Keystone: is its account valid, register it.")
# never an option: command lines are read by everybody
PASSWORD = "XLOUD_IMAGE_ADMIN_PASSWORD"  # noqa: S105 - the name of a variable


def _settings(files: ConfigFiles, dirs: ConfigDirs) -> "KeystoneSettings":
    from xloud_image.errors import ConfigError

    loaded = load(files, dirs)
    wrong = [str(finding) for finding in loaded.refusals if finding.about.startswith("[keystone_authtoken]")]
    if wrong:
        raise ConfigError("; ".join(wrong))
    if loaded.settings.auth.keystone is None:
        raise ConfigError(f"Keystone is not asked: [xloud] auth is {loaded.settings.auth.method}")
    return loaded.settings.auth.keystone


@app.command()
def check(config_file: ConfigFiles = None, config_dir: ConfigDirs = None) -> None:
    """Try the service's own account. Exit code 1 when Keystone refuses it or does not answer.

    xloud-image keystone check --config-dir /etc/glance
    """
    from xloud_image.bootstrap import keystone as registration
    from xloud_image.errors import ConfigError

    if reason := registration.is_valid(_settings(config_file, config_dir)):
        raise ConfigError(reason)
    typer.echo("Keystone knows the service's account.")


@app.command()
def register(
    facts: Annotated[Path, typer.Option(metavar="FILE", help="deployment.json of `config render`.")],
    administrator: Annotated[str, typer.Option(help="Who may change Keystone.")] = "admin",
    project: Annotated[str, typer.Option(help="Project of the administrator.")] = "admin",
    config_file: ConfigFiles = None,
    config_dir: ConfigDirs = None,
) -> None:
    """Make the catalogue entry, endpoints, user, project and role that are missing; may be repeated.

    The administrator's password is read from XLOUD_IMAGE_ADMIN_PASSWORD. Each line that begins with "changed:" tells
    what was done.

        xloud-image keystone register --facts /etc/glance/deployment.json --config-dir /etc/glance
    """
    from xloud_image.bootstrap import keystone as registration
    from xloud_image.errors import ConfigError

    settings = _settings(config_file, config_dir)
    try:
        told = json.loads(facts.read_text())["keystone"]
        wanted = registration.Registration(
            endpoints=told["endpoints"],
            region=told["region"],
            service=told["service"]["name"],
            type=told["service"]["type"],
            role=told["role"],
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{facts} is no deployment.json with a part about Keystone: {error}") from None
    password = os.environ.get(PASSWORD)
    if not password:
        reason = registration.is_valid(settings)
        if reason:
            raise ConfigError(
                f"{reason}. To register the service an administrator is needed: set keystone_admin_password in "
                f"passwords.yml (here: {PASSWORD})"
            )
        typer.echo("The account is valid; without an administrator's password nothing else was looked at.")
        return
    done = registration.register(settings, wanted, administrator, password, project)
    for line in done:
        typer.echo(f"changed: {line}")
    if not done:
        typer.echo("Everything was there.")


@app.command()
def limits(
    *,
    size_total: Annotated[int | None, typer.Option(metavar="MIB", help="image_size_total; -1: any.")] = None,
    stage_total: Annotated[int | None, typer.Option(metavar="MIB", help="image_stage_total.")] = None,
    count_total: Annotated[int | None, typer.Option(metavar="IMAGES", help="image_count_total.")] = None,
    count_uploading: Annotated[int | None, typer.Option(metavar="IMAGES", help="image_count_uploading.")] = None,
    region: Annotated[str | None, typer.Option(help="Region of the limits; unset: that of the file.")] = None,
    administrator: Annotated[str, typer.Option(help="Who may change Keystone.")] = "admin",
    project: Annotated[str, typer.Option(help="Project of the administrator.")] = "admin",
    config_file: ConfigFiles = None,
    config_dir: ConfigDirs = None,
) -> None:
    """Register what each project may have (use_keystone_limits); may be repeated, and changes what differs.

    A resource of which Keystone knows no limit is limited to 0, so all four are registered; those that are not named
    without a limit. Projects get more or less by `openstack limit create --service glance --project P
    --resource-limit N NAME`. The administrator's password is read from XLOUD_IMAGE_ADMIN_PASSWORD.

        xloud-image keystone limits --size-total 102400 --count-total 100 --config-dir /etc/glance
    """
    from xloud_image.bootstrap import keystone as registration
    from xloud_image.errors import ConfigError
    from xloud_image.identity.limits import RESOURCES, UNLIMITED

    settings = _settings(config_file, config_dir)
    if not (password := os.environ.get(PASSWORD)):
        raise ConfigError(f"an administrator is needed: put the password of '{administrator}' into {PASSWORD}")
    given = dict(zip(RESOURCES, (size_total, stage_total, count_total, count_uploading), strict=True))
    wanted = {name: UNLIMITED if number is None else max(number, UNLIMITED) for name, number in given.items()}
    where = region or settings.region_name
    done = registration.register_limits(settings, wanted, administrator, password, project, region=where)
    for line in done:
        typer.echo(f"changed: {line}")
    if not done:
        typer.echo("Everything was there.")
