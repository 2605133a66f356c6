"""Registered data of signed images: active when it was read and is what was signed, else it is not theirs."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization

from tests.imports.test_signatures import DATA, KEYS, certificate, signed
from tests.services.conftest import ADMIN, House
from tests.services.test_registering import settled
from xloud_image.errors import BadRequest, Conflict
from xloud_image.model import Image
from xloud_image.patch import Change
from xloud_image.services import images, locations, lookup


@pytest.fixture
def sealed(house: House, tmp_path: Path) -> House:
    place = tmp_path / "certificates"
    place.mkdir()
    pem = serialization.Encoding.PEM
    (place / "RSA-PSS").write_bytes(certificate(KEYS["RSA-PSS"]).public_bytes(pem))
    (place / "other").write_bytes(certificate(KEYS["RSA-PSS"]).public_bytes(pem))
    service = house.service
    signing = dataclasses.replace(service.settings.signing, signature_certificates=str(place))
    service.settings = dataclasses.replace(service.settings, signing=signing)
    return house


async def new(house: House, data: bytes, **more: Any) -> Image:
    fields = {"disk_format": "raw", "container_format": "bare", **signed("RSA-PSS", "SHA-256"), **more}
    image = await images.create(house.service, ADMIN, fields)
    house.store("one").blobs[image.id] = data
    return image


@pytest.mark.parametrize("good", [True, False])
async def test_the_locations_api(sealed: House, good: bool) -> None:
    image = await new(sealed, DATA if good else DATA[:-1] + b"x")
    registered = await locations.register(sealed.service, ADMIN, image.id, f"memory://one/{image.id}", {})
    assert registered.status == "importing"
    await settled(sealed)
    found = await _get(sealed, image)
    assert found.status == ("active" if good else "queued")
    assert len(found.locations) == good
    assert "certificate" not in str([one.metadata for one in found.locations])
    assert (found.os_hash_value is not None) is good


async def _get(house: House, image: Image) -> Image:
    return await lookup.get(house.service, ADMIN, image.id)


async def test_by_patch(sealed: House) -> None:
    image = await new(sealed, DATA[:-1] + b"x")
    change = Change("add", ("locations", "-"), {"url": f"memory://one/{image.id}", "metadata": {}})
    with pytest.raises(Conflict):
        await images.change(sealed.service, ADMIN, image.id, [change])
    assert (await _get(sealed, image)).status == "queued"
    sealed.store("one").blobs[image.id] = DATA
    assert (await images.change(sealed.service, ADMIN, image.id, [change])).status == "active"


async def test_a_certificate_that_does_not_count(sealed: House) -> None:
    image = await new(sealed, DATA, img_signature_certificate_uuid="nobody")
    with pytest.raises(BadRequest, match="has none of this id"):
        await locations.register(sealed.service, ADMIN, image.id, f"memory://one/{image.id}", {})


async def test_signed_anew_meanwhile(sealed: House) -> None:
    image = await new(sealed, DATA)
    await locations.register(sealed.service, ADMIN, image.id, f"memory://one/{image.id}", {})
    other = Change("replace", ("img_signature_certificate_uuid",), "other")
    await images.change(sealed.service, ADMIN, image.id, [other])
    await settled(sealed)
    assert (await _get(sealed, image)).status == "queued"
