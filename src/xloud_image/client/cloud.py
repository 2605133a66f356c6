"""One image service as one login sees it: the calls of the Image API, their answers and their errors.

Logins are those of every OpenStack client: OS_* variables, clouds.yaml, `--os-*` options, with whatever plugins are
installed. Safe to use from several threads.
"""

from __future__ import annotations

import argparse
import json
import logging
import re
import urllib.parse
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from xloud_image.errors import ConfigError, ImageServiceError

if TYPE_CHECKING:
    import requests

PATCH: Final = "application/openstack-images-v2.1-json-patch"
OCTETS: Final = "application/octet-stream"
logging.getLogger("keystoneauth").setLevel(logging.ERROR)  # it tells of each attempt; the last error is raised
QUIET: Final = 60.0  # seconds in which a server says something
_MOST: Final = 16 << 20  # bytes of an answer that are read
_PAGES: Final = 100_000

Image = dict[str, Any]
Task = dict[str, Any]


class Answered(ImageServiceError):
    """The service answers a call with an error; `answered` is its HTTP status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.answered = status


class Broken(ImageServiceError):
    """The connection cannot be made, or broke: another attempt may do better."""

    temporary = True


class Cloud:
    """`session`: a keystoneauth session with a login; `endpoint`: the image service, with or without version."""

    def __init__(self, session: Any, endpoint: str, name: str = "") -> None:
        self.name = name or urllib.parse.urlsplit(endpoint).netloc
        self._session = session
        base = endpoint.rstrip("/")
        self.url = base if re.search(r"/v2(\.\d+)?\Z", base) else f"{base}/v2"

    def ask(self, method: str, path: str, *, seconds: float = QUIET, **how: Any) -> requests.Response:
        """One call. `Answered` for an error, `Broken` when there is no answer. `json`, `data`, `headers`, `stream` as
        with requests; a body that cannot be sent twice takes `allow_reauth=False`."""
        from keystoneauth1 import exceptions
        from requests.exceptions import RequestException

        how.setdefault("stream", True)  # an answer is read by whoever knows how long it may be
        how.setdefault("headers", {}).setdefault("Accept", "application/json")
        try:
            answer: requests.Response = self._session.request(
                self.url + path, method, raise_exc=False, log=False, timeout=(30, seconds), **how
            )
        except (exceptions.ConnectionError, RequestException) as error:
            raise Broken(f"{self.name} does not answer: {_reason(error)}") from None
        except exceptions.ClientException as error:
            raise ConfigError(f"no login at {self.name}: {error}") from None
        if answer.status_code >= 400:
            raise Answered(answer.status_code, _message(answer))
        return answer

    def get(self, path: str) -> dict[str, Any]:
        """The object that a GET gives."""
        return _object(self.ask("GET", path, connect_retries=2, status_code_retries=2))

    def headers(self) -> dict[str, str]:
        """What a request of another library needs for this login; ask anew for each, tokens end."""
        return dict(self._session.get_auth_headers() or {})

    @property
    def transport(self) -> requests.Session:
        """The requests session beneath, with its certificates."""
        found: requests.Session = self._session.session
        found.verify, found.cert = self._session.verify, self._session.cert
        return found

    def images(self, query: Mapping[str, Any], *, limit: int | None = None) -> Iterator[Image]:
        """Images that the caller sees, page by page. query: parameters of the call."""
        path = f"/images?{urllib.parse.urlencode(query, doseq=True)}"
        count = 0
        for _ in range(_PAGES):
            page = self.get(path)
            for image in page.get("images", ()):
                if limit is not None and count >= limit:
                    return
                count += 1
                yield image
            following = page.get("next")
            if not isinstance(following, str):
                return
            path = "/" + following.partition("/v2/")[2]

    def store_names(self) -> list[str]:
        """The ids of the stores that the service shows."""
        return [str(store["id"]) for store in self.get("/info/stores").get("stores", ())]

    def images_in(self, store: str) -> Iterator[Image]:
        """Active images of all projects, hidden ones too, that lie in a store. For administrators."""
        for hidden in ("false", "true"):
            for image in self.images({"visibility": "all", "status": "active", "os_hidden": hidden, "limit": 1000}):
                if store in str(image.get("stores") or "").split(","):
                    yield image

    def image(self, image_id: str) -> Image:
        """One image by its id."""
        return self.get(f"/images/{urllib.parse.quote(image_id, safe='')}")

    def find(self, name: str) -> Image:
        """The one image with this id or name; community images of others by name as well, when no other has it.
        `Answered` 404, 409: there is none, or several."""
        if _is_id(name):
            try:
                return self.image(name)
            except Answered as error:
                if error.answered != 404:
                    raise
        found: list[Image] = []
        for more in ({}, {"os_hidden": "true"}, {"visibility": "community"}):
            found = list(self.images({"name": name, "limit": 100, **more}, limit=100))
            if found:
                break
        if not found:
            raise Answered(404, f"No image has the name or id {name!r} at {self.name}.")
        if len(found) > 1:
            raise Answered(409, f"{len(found)} images have the name {name!r}; name one by its id: "
                           + ", ".join(str(image["id"]) for image in found[:10]))  # fmt: skip
        return found[0]

    def create(self, fields: Mapping[str, Any]) -> Image:
        """A new image, without data."""
        return _object(self.ask("POST", "/images", json=dict(fields)))

    def change(self, image_id: str, changes: Sequence[Mapping[str, Any]]) -> Image:
        """Apply a JSON patch."""
        body = json.dumps(list(changes)).encode()
        return _object(self.ask("PATCH", f"/images/{image_id}", data=body, headers={"Content-Type": PATCH}))

    def delete(self, image_id: str) -> None:
        """Delete an image and its data."""
        self.ask("DELETE", f"/images/{image_id}").close()

    def tasks_of(self, image_id: str) -> list[Task]:
        """The tasks of an image, the newest first."""
        found: list[Task] = self.get(f"/images/{image_id}/tasks").get("tasks", [])
        return found

    def tasks(self, query: Mapping[str, Any], *, limit: int) -> list[Task]:
        """The newest tasks; for administrators."""
        words = urllib.parse.urlencode({**query, "limit": limit})
        found: list[Task] = self.get(f"/tasks?{words}").get("tasks", [])
        return found

    def task(self, task_id: str, image_id: str | None = None) -> Task:
        """One task: of any image for administrators, else of an image that is named."""
        if image_id is None:
            return self.get(f"/tasks/{urllib.parse.quote(task_id, safe='')}")
        for task in self.tasks_of(image_id):
            if task["id"] == task_id:
                return task
        raise Answered(404, f"The image has no task {task_id}.")

    def begin_import(self, image_id: str, body: Mapping[str, Any]) -> Task | None:
        """Begin an import; its task, None where a service tells none."""
        return self._begin(image_id, "import", body)

    def begin_move(self, image_id: str, source: str, target: str) -> Task | None:
        """Begin to move the data of an image from one store to another; the task."""
        return self._begin(image_id, "actions/move", {"from": source, "to": target})

    def _begin(self, image_id: str, what: str, body: Mapping[str, Any]) -> Task | None:
        before = {task["id"] for task in self._tasks_or_none(image_id)}
        self.ask("POST", f"/images/{image_id}/{what}", json=dict(body)).close()
        new = [task for task in self._tasks_or_none(image_id) if task["id"] not in before]
        return new[0] if new else None

    def cancel(self, task_id: str) -> None:
        """End a task that waits or is under way."""
        self.ask("POST", f"/tasks/{urllib.parse.quote(task_id, safe='')}/actions/cancel").close()

    def _tasks_or_none(self, image_id: str) -> list[Task]:
        try:
            return self.tasks_of(image_id)
        except Answered:
            return []


def connect(options: Sequence[str] = (), *, cloud: str | None = None, region: str | None = None) -> Cloud:
    """The image service that the environment, clouds.yaml and these `--os-*` options mean; or the one of the entry
    `cloud` of clouds.yaml. region: of it, another than is set. `ConfigError`: there is no such, or no way to log in."""
    try:
        from keystoneauth1.exceptions import ClientException
        from openstack.config import loader
        from openstack.exceptions import SDKException
    except ImportError:
        raise ConfigError(
            "logins need the library openstacksdk: pip install 'xloud-image[client]', or openstacksdk"
        ) from None
    parser = _Parser(add_help=False)
    words = list(options)
    more: dict[str, Any] = {"region_name": region} if region else {}
    try:
        config = loader.OpenStackConfig(app_name="xloud-image", load_envvars=True)
        if cloud is None:
            config.register_argparse_arguments(parser, words, service_keys=["image"])
            found = config.get_one(argparse=parser.parse_args(words), **more)
        else:
            found = config.get_one(cloud=cloud, **more)
        session = found.get_session()
        endpoint = found.get_endpoint("image") or session.get_endpoint(
            service_type="image", interface=found.get_interface("image") or "public",
            region_name=found.get_region_name("image") or None,
        )  # fmt: skip
    except (SDKException, ClientException, OSError, ValueError) as error:
        sentence = str(error).strip() or type(error).__name__
        raise ConfigError(
            f"no login: {sentence}. Set OS_CLOUD (an entry of clouds.yaml) or the OS_* variables"
        ) from None
    if not endpoint:
        raise ConfigError("the cloud's catalogue has no image service in this region and of this interface")
    return Cloud(session, str(endpoint), name=cloud or "")


class _Parser(argparse.ArgumentParser):
    """One that says what is wrong by an error instead of ending the process."""

    def error(self, message: str) -> Any:
        raise ConfigError(message)


def _is_id(text: str) -> bool:
    try:
        return str(uuid.UUID(text)) == text.lower()
    except ValueError:
        return False


def _object(answer: requests.Response) -> dict[str, Any]:
    """The JSON object of an answer of bounded size."""
    from requests.exceptions import RequestException

    body = bytearray()
    try:
        with answer:
            for chunk in answer.iter_content(1 << 18):
                body += chunk
                if len(body) > _MOST:
                    raise Broken("the answer is longer than any of this API is")
        found = json.loads(body or b"{}")
    except RequestException as error:
        raise Broken(f"the connection broke: {_reason(error)}") from None
    except (ValueError, RecursionError):
        raise Broken("the answer is no JSON: is this address an image service?") from None
    if not isinstance(found, dict):
        raise Broken("the answer is no JSON object: is this address an image service?")
    return found


def _message(answer: requests.Response) -> str:
    """What an error says, in one line of text."""
    try:
        with answer:
            text = answer.raw.read(1 << 16, decode_content=True).decode(errors="replace")
    except Exception:  # noqa: BLE001 - the status tells enough
        text = ""
    try:
        told = json.loads(text)
        text = str(told.get("message") or "") if isinstance(told, dict) else ""
    except (ValueError, RecursionError):
        text = re.sub(r"(?is)<(head|style|script)\b.*?</\1>", " ", text)
    text = re.sub(r"<[^<>]{0,200}>", " ", text)
    sentence = " ".join("".join(char if char.isprintable() else " " for char in text).split())[:1000]
    return sentence or f"the service answers {answer.status_code} {answer.reason or ''}".strip()


def _reason(error: Exception) -> str:
    """In one line, as short as it can be, without logins that an address may hold."""
    text = re.sub(r"://[^/\s@]*@", "://***@", " ".join(str(error).split()))
    known = re.search(r"\[Errno -?\d+\] ([^)\"']*)|(Read timed out|Connection aborted|certificate verify failed)", text)
    return (known[1] or known[2]) if known else text[:300]


__all__ = ["OCTETS", "QUIET", "Answered", "Broken", "Cloud", "Image", "Task", "connect"]
