"""How the data of an image is judged: the operator's settings and what the image claims, as an inspection."""

from __future__ import annotations

from xloud_image.inspection import Inspection
from xloud_image.model import Image
from xloud_image.services.runtime import Runtime


def inspection(runtime: Runtime, image: Image) -> Inspection:
    """For data that comes in: dangerous content and content that is not what is claimed is refused."""
    return _inspection(runtime, image, match=runtime.settings.formats.require_image_format_match)


def claimed(runtime: Runtime, image: Image) -> Inspection:
    """For a disk that is to be read as the format that the image claims: it must be that."""
    return _inspection(runtime, image.replace(container_format="bare"), match=True)


def safety(runtime: Runtime, image: Image) -> Inspection:
    """For data that lies elsewhere: only dangerous content is refused, whatever is claimed."""
    return _inspection(runtime, image, match=False)


def _inspection(runtime: Runtime, image: Image, *, match: bool) -> Inspection:
    settings = runtime.settings.formats
    return Inspection(
        image.disk_format,
        image.container_format,
        vmdk_types=settings.vmdk_allowed_types,
        match=match,
        nonfatal=settings.gpt_safety_checks_nonfatal,
    )
