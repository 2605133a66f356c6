"""`xloud-image config …`: what a configuration means."""

import functools
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from xloud_image.cli.options import AsJson, ConfigDirs, ConfigFiles, load

if TYPE_CHECKING:
    from xloud_image.config.findings import Findings, Severity

app = typer.Typer(no_args_is_help=True, help="What the configuration means.")

_TITLES = {
    "error": "The service would not do what the configuration says:",
    "warning": "To be looked at:",
    "note": "Not used here:",
}


@app.command()
def check(config_file: ConfigFiles = None, config_dir: ConfigDirs = None, as_json: AsJson = False) -> None:
    """Print the configuration in force, with secrets masked, and what became of every option.

    Lines that begin with # have their default. Each option of a file is honoured, known but not yet built (a warning),
    unsafe to ignore (the service refuses to start), without meaning here, or unknown (with the nearest known name).
    Every guess is a line of its own.

    Exit code 1 when the service would not do what the files say, else 0.

        xloud-image config check --config-file /etc/glance/glance-api.conf

        xloud-image config check --json | jq '.findings[] | select(.severity == "error")'
    """
    from xloud_image.cli.ready import complete
    from xloud_image.config import check as report

    loaded = complete(load(config_file, config_dir))
    if as_json:
        typer.echo(json.dumps(report.as_json(loaded.resolved, loaded.findings, loaded.files), indent=2))
    else:
        read = ", ".join(map(str, loaded.files)) or "no file: the embedded default"
        typer.echo(f"# read: {read}\n\n{report.as_ini(loaded.resolved)}")
        for severity, title in _TITLES.items():
            findings = [finding for finding in loaded.findings if finding.severity == severity]
            if findings:
                typer.echo(f"# {title}")
            for finding in findings:
                typer.echo(f"#   {finding.kind}: {finding}")
    raise typer.Exit(1 if loaded.refusals else 0)


@app.command()
def render(
    *,
    globals_: Annotated[Path, typer.Option("--globals", metavar="FILE", help="globals.yml; globals.d beside it too.")],
    output: Annotated[
        Path | None, typer.Option(metavar="DIRECTORY", help="Where the files go; without it nothing is written.")
    ] = None,
    passwords: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Passwords; by default passwords.yml beside the globals. Made when missing."),
    ] = None,
    overrides: Annotated[
        Path | None,
        typer.Option(metavar="DIRECTORY", help="Override directory; by default config/ beside the globals."),
    ] = None,
    hostname: Annotated[str, typer.Option(help="The node whose override folder glance/HOSTNAME/ is read too.")] = "",
    extra: Annotated[
        list[str] | None, typer.Option("-e", "--extra", metavar="NAME=VALUE", help="Wins over all files; or @FILE.")
    ] = None,
    address: Annotated[str, typer.Option(help="Address of the node, when the globals name none.")] = "",
    node_address: Annotated[
        str, typer.Option(help="Address that this node listens on, when the globals name none; else --address.")
    ] = "",
    previous: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="DIRECTORY",
            help="An earlier rendering of this deployment, whose stores are kept for reading; may be repeated. "
            "By default what is in --output.",
        ),
    ] = None,
    drop_empty: Annotated[
        list[str] | None,
        typer.Option(metavar="STORE", help="A kept store in which nothing lies; it goes. May be repeated."),
    ] = None,
    vault_password_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            envvar="ANSIBLE_VAULT_PASSWORD_FILE",
            help="The password of what ansible-vault encrypted, or a program that prints it.",
        ),
    ] = None,
    preview: Annotated[bool, typer.Option("--preview", help="Do not keep passwords that are made.")] = False,
    explain: Annotated[
        bool, typer.Option("--explain", help="Show where each line comes from; secrets masked.")
    ] = False,
) -> None:
    """Make the files of a node from globals: glance-api.conf, what belongs beside it, and deployment.json.

    This is what `xavs-ansible` does on the control host. Everything that is wrong in what was given is told in one run,
    with file and line, before anything is written; the files are read as the service will read them. Files that are the
    same already are left alone. Exit code 1 when something is wrong.

        xloud-image config render --globals /etc/xavs/globals.yml --explain

        xloud-image config render --globals globals.yml --overrides config --output /tmp/glance
    """
    from xavs import explain as explaining
    from xavs import extra_vars, vaults
    from xavs import render as rendering
    from xloud_image.cli import ready
    from xloud_image.config.findings import Findings

    found = Findings()
    vault = vaults.of_file(vault_password_file) if vault_password_file else None
    more = extra_vars.read(extra or (), found, vault)
    found.stop()
    before = previous or ([output] if output else [])
    done = rendering.render(
        rendering.Inputs(
            globals_,
            passwords,
            overrides,
            more,
            hostname,
            address,
            node_address,
            before,
            frozenset(drop_empty or ()),
            vault,
        ),
        functools.partial(ready.complete, here=False),
    )
    if explain:
        typer.echo(explaining.explain(done))
    _tell(done.findings)
    if output is None:
        if not explain:
            typer.echo("Nothing is wrong. Nothing was written: name a directory with --output.")
        return
    changed = rendering.write(done, output, keep_passwords=not preview)
    if done.passwords.made and not preview:
        typer.echo(f"made in {done.passwords.path}: {', '.join(done.passwords.made)}")
    for path in changed:
        typer.echo(f"{'written' if path.exists() else 'removed'}: {path}")
    if not changed:
        typer.echo(f"{output} is as it should be already.")


def _tell(findings: "Findings") -> None:
    severities: tuple[Severity, ...] = ("warning", "note")
    for severity in severities:
        for finding in findings.of(severity):
            typer.echo(f"{severity}: {finding}", err=True)
