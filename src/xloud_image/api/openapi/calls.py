"""What each call of the API does, in words: the part of the OpenAPI document that no schema holds."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Final

from xloud_image.api.openapi import parameters

TAGS: Final = {
    "service": "What this service is and can do.",
    "images": "Images and their fields.",
    "data": "The bytes of images.",
    "tags": "Words to find images by.",
    "members": "Projects with which an image is shared.",
    "locations": "Where the bytes lie.",
}


@dataclasses.dataclass(frozen=True, slots=True)
class Call:
    """One operation. `body` and `parameters` name entries of `bodies` and `parameters`; the path's own and those of
    every call need no mention. `gives`: status → name of a schema or of a media type, or None for an empty answer;
    `headers`: status → names of `answers.HEADERS`. `fails`: status → when, beyond what can befall every call.
    `open`: needs no login.
    """

    name: str
    tag: str
    summary: str
    gives: Mapping[int, str | None]
    description: str = ""
    parameters: tuple[str, ...] = ()
    body: str | None = None
    headers: Mapping[int, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    fails: Mapping[int, str] = dataclasses.field(default_factory=dict)
    open: bool = False
    links: bool = False


_IMAGE: Final = "/v2/images/{image_id}"
_NO_IMAGE: Final = "No image has this id, or the caller cannot see it."
_NO_RIGHT: Final = "The caller may not do this to this image."
_VERSIONS: Final = "Versions"
_FILTERS: Final = tuple(f"by_{one['name']}" for one in parameters.filters())

CALLS: Final[Mapping[tuple[str, str], Call]] = {
    ("GET", "/"): Call(
        "listVersionsAtRoot",
        "service",
        "The versions to choose from.",
        {300: _VERSIONS},
        headers={300: ("Vary",)},
        open=True,
    ),
    ("GET", "/versions"): Call(
        "listVersions", "service", "The versions.", {200: _VERSIONS}, headers={200: ("Vary",)}, open=True
    ),
    ("GET", "/openapi.json"): Call("showDocument", "service", "This document.", {200: "Document"}, open=True),
    ("GET", "health"): Call(
        "checkHealth",
        "service",
        "Whether the service wants requests.",
        {200: "text/plain"},
        fails={503: "The operator has taken this node out of service."},
        open=True,
    ),
    ("GET", "/v2/images"): Call(
        "listImages",
        "images",
        "One page of the images that the caller may see.",
        {200: "Images"},
        parameters=(*parameters.LIST, *_FILTERS),
        fails={403: "The marker is an image that the caller cannot see, or listing is not allowed."},
    ),
    ("POST", "/v2/images"): Call(
        "createImage",
        "images",
        "A new image, without data yet.",
        {201: "Image"},
        body="image",
        headers={201: ("Location", "OpenStack-image-import-methods", "OpenStack-image-store-ids")},
        fails={
            403: "A read-only or reserved name, or an owner or visibility that is not for this caller.",
            409: "The id is or was in use.",
            413: "Too many properties or tags.",
        },
        links=True,
    ),
    ("GET", _IMAGE): Call("showImage", "images", "One image.", {200: "Image"}, fails={404: _NO_IMAGE}),
    ("PATCH", _IMAGE): Call(
        "changeImage",
        "images",
        "Change fields, properties, tags or locations.",
        {200: "Image"},
        body="changes",
        fails={
            403: "A read-only or reserved name, a field that cannot be removed, or no right to this.",
            404: _NO_IMAGE,
            409: "A property that does not exist (or does), or a status that does not allow it.",
            413: "Too many properties, tags or locations.",
            415: "Neither of the two media types.",
        },
        headers={200: ("Warning",), 415: ("Accept-Patch",)},
    ),
    ("DELETE", _IMAGE): Call(
        "deleteImage",
        "images",
        "Delete an image and its data.",
        {204: None},
        fails={403: "Protected, or no right to this.", 404: _NO_IMAGE, 409: "A store says that the data is in use."},
    ),
    ("GET", f"{_IMAGE}/file"): Call(
        "downloadData",
        "data",
        "The data, or a range of it.",
        {200: "application/octet-stream", 206: "application/octet-stream", 204: None, 304: None},
        description="204: the image has no data yet.",
        parameters=("range", "old_range", "if_none_match", "if_range", "prefer"),
        headers={
            200: ("Content-MD5", "ETag", "Accept-Ranges"),
            206: ("ETag", "Accept-Ranges", "Content-Range"),
            304: ("ETag",),
        },
        fails={
            403: "The image is deactivated, or no right to this.",
            404: f"{_NO_IMAGE} Or no store has the data any more.",
            416: "The range lies outside the data, or is none.",
            503: "No store can give the data now; or it lies elsewhere and is not what was registered any more.",
        },
    ),
    ("PUT", f"{_IMAGE}/file"): Call(
        "uploadData",
        "data",
        "Give a queued image its data.",
        {204: None},
        description="The answer comes when the data is durable. After a failure the image is queued again.",
        parameters=("choose_store", "announced_size"),
        body="data",
        headers={204: ("X-Image-Meta-Store", "Warning")},
        fails={
            400: "A format is not set, the store is unknown, or more or fewer bytes came than announced.",
            403: _NO_RIGHT,
            404: _NO_IMAGE,
            409: "The image is not queued, or another upload was first.",
            410: "The image was deleted meanwhile, or the store is read-only; the message names those that are not.",
            413: "The store is full, or the data larger than images may be.",
            415: "Not application/octet-stream, or data that is not what the image claims or that is dangerous.",
        },
    ),
    ("PUT", f"{_IMAGE}/stage"): Call(
        "stageData",
        "data",
        "Keep data for an import.",
        {},
        description="Not offered in this release: glance-direct is not among the methods of /v2/info/import.",
        body="data",
        fails={404: "Always."},
    ),
    ("POST", f"{_IMAGE}/import"): Call(
        "importImage",
        "data",
        "Have the service fetch the data.",
        {},
        description="No method is enabled in this release; see /v2/info/import.",
        body="import",
        fails={400: "The method is not enabled.", 404: _NO_IMAGE},
    ),
    ("POST", f"{_IMAGE}/actions/deactivate"): Call(
        "deactivateImage",
        "images",
        "Give the data to administrators only.",
        {204: None},
        fails={403: "The image is neither active nor deactivated, or no right to this.", 404: _NO_IMAGE},
    ),
    ("POST", f"{_IMAGE}/actions/reactivate"): Call(
        "reactivateImage",
        "images",
        "Give the data to all readers again.",
        {204: None},
        fails={403: "The image is neither active nor deactivated, or no right to this.", 404: _NO_IMAGE},
    ),
    ("PUT", f"{_IMAGE}/tags/{{tag}}"): Call(
        "addTag",
        "tags",
        "Add one tag; one that is there already is fine.",
        {204: None},
        fails={403: _NO_RIGHT, 404: _NO_IMAGE, 413: "Too many tags."},
    ),
    ("DELETE", f"{_IMAGE}/tags/{{tag}}"): Call(
        "removeTag", "tags", "Remove one tag.", {204: None}, fails={403: _NO_RIGHT, 404: "No such image or tag."}
    ),
    ("GET", f"{_IMAGE}/members"): Call(
        "listMembers",
        "members",
        "The projects that the image is shared with; a member sees itself only.",
        {200: "Members"},
        fails={403: "Only shared images have members.", 404: _NO_IMAGE},
    ),
    ("POST", f"{_IMAGE}/members"): Call(
        "addMember",
        "members",
        "Share the image with one more project.",
        {200: "Member"},
        body="member",
        fails={
            403: "Only shared images have members, and only their owner adds them.",
            404: _NO_IMAGE,
            409: "It is a member already.",
            413: "Too many members.",
        },
    ),
    ("GET", f"{_IMAGE}/members/{{member}}"): Call(
        "showMember", "members", "One membership.", {200: "Member"}, fails={404: "No such image or member."}
    ),
    ("PUT", f"{_IMAGE}/members/{{member}}"): Call(
        "answerMember",
        "members",
        "Accept or reject an image; for the member project.",
        {200: "Member"},
        body="answer",
        fails={403: "Only the member project or an administrator answers.", 404: "No such image or member."},
    ),
    ("DELETE", f"{_IMAGE}/members/{{member}}"): Call(
        "removeMember",
        "members",
        "Share with a project no longer.",
        {204: None},
        fails={403: "Only shared images have members, and only their owner removes them.", 404: "No such member."},
    ),
    ("GET", f"{_IMAGE}/locations"): Call(
        "listLocations",
        "locations",
        "Where the data lies; for services and administrators.",
        {200: "Locations"},
        fails={403: _NO_RIGHT, 404: _NO_IMAGE},
    ),
    ("POST", f"{_IMAGE}/locations"): Call(
        "addLocation",
        "locations",
        "Point a queued image at data that exists.",
        {202: None},
        description="With validation_data the image becomes active when the data has this digest; without it is "
        "active at once and its digests follow. From an administrator or service an active image takes a URL that it "
        "has already: what is there now is right.",
        body="location",
        headers={202: ("Warning",)},
        fails={
            400: "The URL is none, holds a password, or leads to no data or no public address; or the digest is none.",
            403: "This URL is not for this caller, or no right to this image.",
            404: _NO_IMAGE,
            409: "The image is not queued, or the data at this URL is being removed.",
            413: "Too many locations.",
        },
    ),
    ("GET", f"{_IMAGE}/tasks"): Call(
        "listImageTasks",
        "images",
        "The tasks of an image.",
        {},
        description="Not offered in this release.",
        fails={404: "Always."},
    ),
    ("DELETE", "/v2/stores/{store}/{image_id}"): Call(
        "deleteFromStore",
        "locations",
        "Remove the data from one of several stores.",
        {204: None},
        fails={
            403: "It is the last store that holds the data, or no right to this.",
            404: "No such image, it is not in this store, or there is a single store.",
            409: "No such store, the image is not active, or the data is in use.",
        },
    ),
    ("GET", "/v2/schemas/{name}"): Call(
        "showSchema",
        "service",
        "The JSON schema of images or members, singular or list.",
        {200: "Schema"},
        fails={404: "No schema has this name."},
    ),
    ("GET", "/v2/info/stores"): Call(
        "listStores",
        "service",
        "The stores to choose from.",
        {200: "Stores"},
        fails={404: "There is a single store."},
    ),
    ("GET", "/v2/info/stores/detail"): Call(
        "listStoresInDetail",
        "service",
        "The stores with their facts; for administrators and services.",
        {200: "StoresInDetail"},
        fails={403: "Not for this caller.", 404: "There is a single store."},
    ),
    ("GET", "/v2/info/import"): Call(
        "listImportMethods", "service", "The enabled ways of import.", {200: "ImportMethods"}
    ),
    ("GET", "/v2/info/usage"): Call(
        "showUsage", "service", "The caller's limits and what is used of them.", {200: "Usage"}
    ),
}
