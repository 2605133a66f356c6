"""`xloud-image tasks …`: long work that was asked for, such as imports: how far it is, its end, taking it back."""

import json
from typing import Annotated, Any

import typer

from xloud_image.cli import login
from xloud_image.cli.options import AsJson
from xloud_image.cli.progress import Bars
from xloud_image.cli.table import table

app = typer.Typer(
    no_args_is_help=True,
    help="Tasks of a service: imports, copies and what became of them. Logs in as `images` does. Without --image these "
    "words are for administrators.",
)

OfImage = Annotated[str | None, typer.Option("--image", metavar="IMAGE", help="Those of this image, by id or name.")]
_TITLES = ("id", "type", "status", "image_id", "updated_at", "message")


@app.command("list")
def list_(
    image: OfImage = None,
    status: Annotated[str | None, typer.Option(help="pending, processing, success or failure.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="So many at most, the newest.")] = 50,
    as_json: AsJson = False,
) -> None:
    """Print tasks, the newest first. The list of all images tells no messages; `show` does.

    xloud-image tasks list --image ubuntu-24.04
    """
    cloud = login.cloud()
    if image is not None:
        found = [task for task in cloud.tasks_of(cloud.find(image)["id"]) if status in (None, task["status"])][:limit]
    else:
        found = cloud.tasks({"status": status} if status else {}, limit=limit)
    if as_json:
        typer.echo(json.dumps(found, indent=2))
    else:
        table(_TITLES, [[str(task.get(title) or "") for title in _TITLES] for task in found])


@app.command()
def show(task: str, image: OfImage = None, as_json: AsJson = False) -> None:
    """Print one task: what was asked for, how far it is (bytes, percent, rate, step), what became of it.

    xloud-image tasks show 3f0d7c2e-6c58-4c35-9f0e-2d7c9c1b7a11 --image ubuntu-24.04
    """
    cloud = login.cloud()
    found = cloud.task(task, cloud.find(image)["id"] if image is not None else None)
    if as_json:
        typer.echo(json.dumps(found, indent=2))
    else:
        table(("field", "value"), [[name, _text(value)] for name, value in sorted(found.items())])


@app.command()
def wait(task: str, image: OfImage = None) -> None:
    """Wait for the end of a task. Exit code 1 with the reason when it fails.

    xloud-image tasks wait 3f0d7c2e-6c58-4c35-9f0e-2d7c9c1b7a11 --image ubuntu-24.04
    """
    from xloud_image.client import waiting

    cloud = login.cloud()
    found = cloud.task(task, cloud.find(image)["id"] if image is not None else None)
    with Bars() as bars:
        failed = bars.each(
            lambda one: bars.say(waiting.follow(bars, cloud, str(one["image_id"]), one)),
            [found],
            at_once=1,
            name=lambda one: str(one["id"]),
        )
    raise typer.Exit(1 if failed else 0)


@app.command()
def cancel(task: str) -> None:
    """End a task that waits or is under way, within seconds; what it wrote is removed, and an image that was to get its
    data is queued again. For whoever may change the image. A call of this service, that Glance has not.

    xloud-image tasks cancel 3f0d7c2e-6c58-4c35-9f0e-2d7c9c1b7a11
    """
    login.cloud().cancel(task)
    typer.echo(f"{task}  is being cancelled")


@app.command()
def retry(task: str, image: OfImage = None) -> None:
    """Ask once more for what a task that failed was asked for; prints the new task. One that waits for its next attempt
    goes on by itself.

    xloud-image tasks retry 3f0d7c2e-6c58-4c35-9f0e-2d7c9c1b7a11 --image ubuntu-24.04
    """
    from xloud_image.errors import ConfigError

    cloud = login.cloud()
    found = cloud.task(task, cloud.find(image)["id"] if image is not None else None)
    body = (found.get("input") or {}).get("import_req")
    if found.get("status") != "failure" or not isinstance(body, dict):
        raise ConfigError(f"this task is {found.get('status')}; only an import that failed is asked for again")
    if "***" in json.dumps(body):
        raise ConfigError("its URL holds a login, which tasks do not tell: use `images import --into` with the URL")
    new = cloud.begin_import(str(found["image_id"]), body)
    typer.echo(f"{found['image_id']}  task {new['id']}" if new else f"{found['image_id']}  under way")


def _text(value: Any) -> str:
    return json.dumps(value) if isinstance(value, dict | list) else "" if value is None else str(value)
