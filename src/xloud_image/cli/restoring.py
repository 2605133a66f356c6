"""`xloud-image images restore`: have back an image whose deletion is delayed."""

import asyncio
from typing import Annotated

import typer

from xloud_image.cli.options import ConfigDirs, ConfigFiles, load


def restore(
    image: Annotated[str, typer.Argument(metavar="ID", help="The image.")],
    config_file: ConfigFiles = None,
    config_dir: ConfigDirs = None,
) -> None:
    """Have back a deleted image whose data have not been scrubbed ([DEFAULT] delayed_delete, scrub_time).

    Works on this node's configuration, without a login. Exit code 1 when there is no such image any more.

        xloud-image images restore 6c9f9a0e-… --config-file /etc/glance/glance-api.conf
    """
    from xloud_image.services import scrubbing
    from xloud_image.services.runtime import Runtime

    async def work() -> str:
        async with Runtime.open(load(config_file, config_dir).require(), "policy", "db") as runtime:
            return (await scrubbing.restore(runtime, None, image.lower())).status

    typer.echo(f"The image {image} is there again, {asyncio.run(work())}.")
