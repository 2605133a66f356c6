"""Images that are to be, and where their data comes from: what the words of `images` that make one have in common."""

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from xloud_image.cli.progress import Bars
from xloud_image.cli.table import amount

if TYPE_CHECKING:
    from xloud_image.client.cloud import Cloud, Image, Task
    from xloud_image.client.data import Source


class New:
    """An image that is to be, and where its data comes from."""

    def __init__(
        self,
        cloud: "Cloud",
        told: str,
        source: "Source",
        fields: Mapping[str, Any],
        *,
        expected: Mapping[str, str] | None = None,
        made: "Image | None" = None,
    ) -> None:
        self.cloud, self.told, self._source = cloud, told, source
        self._fields, self._expected, self._made = dict(fields), dict(expected or {}), made
        self._ours = made is None

    @classmethod
    def of_file(
        cls, cloud: "Cloud", file: str, disk_format: str | None, given: Mapping[str, Any], protected: bool
    ) -> "New":
        source = source_of(file)
        if disk_format is None:
            if file == "-":
                raise typer.BadParameter("data from standard input needs --disk-format")
            from xloud_image.client import formats

            disk_format = formats.of_file(Path(file))
        name = given.get("name") or (None if file == "-" else Path(file).stem)
        return cls(cloud, file, source, {**given, "name": name, "disk_format": disk_format, "protected": protected})

    @classmethod
    def of_export(cls, cloud: "Cloud", place: Path, name: str | None, protected: bool) -> "New":
        from xloud_image.client import data, exports

        fields, file, digests = exports.read(place)
        fields |= {"name": name} if name else {}
        fields["protected"] = protected or fields.get("protected", False)
        return cls(cloud, str(place), data.File(file), fields, expected=digests)

    def upload(self, bars: Bars, store: str | None) -> None:
        """Make it, give it its data; say what became of it."""
        from xloud_image.client import data, sending
        from xloud_image.client.cloud import Answered
        from xloud_image.errors import ConfigError, Unverified

        protected = self._fields.pop("protected", False)
        image = self._made or self._create(bars)
        image_id = image["id"]
        name = image.get("name") or image_id
        source = data.Verified(self._source, self._expected, bars.bar(name, self._source.size), bars.stop)
        try:
            image = sending.upload(self.cloud, image_id, source, store=store)
        except (Answered, Unverified, ConfigError):
            if self._ours:
                self.cloud.delete(image_id)
            raise
        except BaseException:
            if isinstance(self._source, data.File) and not self._expected and not protected:
                told = shlex.quote(str(self.told))
                bars.say(f"go on with: xloud-image images upload {image_id} {told}", error=True)
            elif self._ours:
                bars.say(f"image {image_id} is there without data: delete it, and begin anew", error=True)
            raise
        if protected:
            image = self.cloud.change(image_id, [{"op": "replace", "path": "/protected", "value": True}])
        bars.say(f"{image_id}  {name}  {image.get('status')}  {amount(image.get('size'))}")

    def _create(self, bars: Bars) -> "Image":
        """The image, without data."""
        from xloud_image.client.cloud import Answered

        fields = {key: value for key, value in self._fields.items() if value is not None}
        try:
            image = self.cloud.create(fields)
        except Answered as error:
            if error.answered != 403 or fields.get("visibility") != "public":
                raise
            image = self.cloud.create({**fields, "visibility": "private"})
            bars.say(f"{self.told}: this one is private, because: {error.message}", error=True)
        bars.say(f"{self.told}: image {image['id']} of format {image.get('disk_format')}", error=True)
        return image


def import_one(
    bars: Bars,
    cloud: "Cloud",
    source: str,
    into: str | None,
    fields: dict[str, Any],
    target: dict[str, Any],
    *,
    wait: bool,
) -> None:
    from xloud_image.client import data, sending, waiting
    from xloud_image.client.cloud import Answered

    is_url = source.startswith(("http://", "https://"))
    if into is not None:
        image = cloud.find(into)
    else:
        plain = source.partition("?")[0].rstrip("/").rpartition("/")[2]
        fields["name"] = fields.get("name") or Path(plain).stem or "imported"
        fields["disk_format"] = fields["disk_format"] or (_format_at(source) if is_url else _format_of(source))
        image = cloud.create({key: value for key, value in fields.items() if value is not None})
        bars.say(f"{without_login(source)}: image {image['id']} of format {image.get('disk_format')}", error=True)
    try:
        if is_url:
            method = {"name": "web-download", "uri": source}
        else:
            method = {"name": "glance-direct"}
            file = data.Verified(
                source_of(source), {}, bars.bar(str(image.get("name")), source_of(source).size), bars.stop
            )
            sending.upload(cloud, image["id"], file, stage=True)
        task = cloud.begin_import(image["id"], {"method": method, **target})
    except Answered:
        if into is None:
            cloud.delete(image["id"])
        raise
    begun(bars, cloud, image["id"], task, wait=wait, follow=waiting.follow)


def begun(bars: Bars, cloud: "Cloud", image_id: str, task: "Task | None", *, wait: bool, follow: Any) -> None:
    """Say what has begun; when asked for, wait for its end."""
    told = f"task {task['id']}" if task else "under way"
    if not wait:
        bars.say(f"{image_id}  {told}")
        return
    bars.say(follow(bars, cloud, image_id, task))


def source_of(file: str) -> "Source":
    from xloud_image.client import data

    return data.Stream(sys.stdin.buffer) if file == "-" else data.File(Path(file))


def _format_of(file: str) -> str:
    from xloud_image.client import formats

    return formats.of_file(Path(file))


def _format_at(url: str) -> str:
    """The format of what a URL leads to: by its first bytes when this machine may read them, else by its name."""
    import requests

    from xloud_image.client import formats

    try:
        headers = {"Range": f"bytes=0-{formats.HEAD - 1}", "Accept-Encoding": "identity"}
        with requests.get(url, headers=headers, timeout=10, stream=True) as answer:
            if answer.status_code in (200, 206):
                return formats.of_bytes(answer.raw.read(formats.HEAD), name=without_login(url))
    except (requests.exceptions.RequestException, OSError):
        pass
    guess = formats.of_name(url.partition("?")[0])
    if guess is None:
        raise typer.BadParameter(f"say --disk-format: {without_login(url)} cannot be read from here")
    return guess


def without_login(url: str) -> str:
    """A URL for messages: without login and query, which may be secrets."""
    from urllib.parse import urlsplit

    if not url.startswith(("http://", "https://")):
        return url
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
