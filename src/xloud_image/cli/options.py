"""Options that several words share, and reading the configuration by them. No word stands here."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from xloud_image.config.loader import Loaded

ConfigFiles = Annotated[
    list[Path] | None,
    typer.Option(
        "--config-file",
        metavar="FILE",
        help="Configuration file; may be repeated, later ones win. "
        "Without it: the files of /etc/glance, or of the directory that OS_GLANCE_CONFIG_DIR names.",
    ),
]
ConfigDirs = Annotated[
    list[Path] | None,
    typer.Option(
        "--config-dir",
        metavar="DIRECTORY",
        help="Directory like /etc/glance (glance-api.conf, glance-api.conf.d/…), or of *.conf files read by name; "
        "read after the files.",
    ),
]
Wait = Annotated[float, typer.Option(help="Seconds in which pending deletions and the like are finished.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]


def load(files: list[Path] | None, dirs: list[Path] | None) -> "Loaded":
    """The configuration that the options mean. ConfigError when a file cannot be read."""
    from xloud_image.config import loader

    return loader.load(files or (), dirs or ())


def refuse(loaded: "Loaded") -> None:
    """ConfigError with a line for each reason, when the service would not do what the files say."""
    from xloud_image.errors import ConfigError

    if loaded.refusals:
        lines = "".join(f"\n  {finding}" for finding in loaded.refusals)
        raise ConfigError(f"the service would not do what the configuration says:{lines}")
