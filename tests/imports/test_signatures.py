"""Signed images on a real service: verified while they are uploaded, imported and registered, and nothing left of what
was not signed."""

import base64
import datetime as dt
import random
from collections.abc import Iterator
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, padding, rsa
from cryptography.x509.oid import NameOID

from tests.api.cloud import Cloud
from tests.imports.conftest import begin, ended, stage

DATA = random.Random(11).randbytes(700_000)
NOW = dt.datetime.now(dt.UTC)
KEYS: dict[str, Any] = {
    "RSA-PSS": rsa.generate_private_key(65537, 2048),
    "DSA": dsa.generate_private_key(1024),
    "ECC_SECP384R1": ec.generate_private_key(ec.SECP384R1()),
    "ECC_SECP521R1": ec.generate_private_key(ec.SECP521R1()),
}
METHODS = {
    "SHA-224": hashes.SHA224(),
    "SHA-256": hashes.SHA256(),
    "SHA-384": hashes.SHA384(),
    "SHA-512": hashes.SHA512(),
}


def certificate(key: Any, begins: int = -1, ends: int = 1) -> x509.Certificate:
    """`begins`, `ends`: days from now."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "signer")])
    signer = KEYS["RSA-PSS"]
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW + dt.timedelta(days=begins))
        .not_valid_after(NOW + dt.timedelta(days=ends))
        .sign(signer, hashes.SHA256())
    )


def signed(key_type: str, method: str, data: bytes = DATA, certificate: str | None = None) -> dict[str, str]:
    """The properties of an image whose data was signed so."""
    key, hashed = KEYS[key_type], METHODS[method]
    if key_type == "RSA-PSS":
        value = key.sign(data, padding.PSS(padding.MGF1(hashed), padding.PSS.MAX_LENGTH), hashed)
    elif key_type == "DSA":
        value = key.sign(data, hashed)
    else:
        value = key.sign(data, ec.ECDSA(hashed))
    return {
        "img_signature": base64.b64encode(value).decode(),
        "img_signature_hash_method": method,
        "img_signature_key_type": key_type,
        "img_signature_certificate_uuid": certificate or key_type,
    }


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    folder = tmp_path_factory.mktemp("signed")
    place = folder / "certificates"
    place.mkdir()
    for number, (name, key) in enumerate(KEYS.items()):
        encoding = serialization.Encoding.DER if number % 2 else serialization.Encoding.PEM
        (place / f"{name}{('.pem', '.der')[number % 2]}").write_bytes(certificate(key).public_bytes(encoding))
    pem = serialization.Encoding.PEM
    (place / "old").write_bytes(certificate(KEYS["RSA-PSS"], -9, -1).public_bytes(pem))
    (place / "young").write_bytes(certificate(KEYS["RSA-PSS"], 1, 9).public_bytes(pem))
    (place / "junk").write_bytes(b"-----BEGIN CERTIFICATE-----\nx\n")
    (folder / "secret").write_bytes(certificate(KEYS["RSA-PSS"]).public_bytes(pem))
    cloud = Cloud(
        folder,
        options={"node_staging_uri": f"file://{folder / 'staging'}", "enabled_import_methods": "glance-direct"},
        xloud={"signature_certificates": place, "job_workers": 1},
        image_import_opts={"image_import_plugins": "image_decompression"},
    )
    with cloud.importing():
        yield cloud


@pytest.mark.parametrize("key_type", KEYS)
@pytest.mark.parametrize("method", METHODS)
def test_what_was_signed_is_taken(cloud: Cloud, key_type: str, method: str) -> None:
    image = cloud.ann.new(DATA, **signed(key_type, method))
    assert cloud.ann.show(image)["status"] == "active"


def test_a_wrong_last_byte(cloud: Cloud) -> None:
    image = cloud.ann.new(**signed("RSA-PSS", "SHA-256"))
    before = cloud.files("fast")
    wrong = DATA[:-1] + bytes([DATA[-1] ^ 1])
    answer = cloud.ann.upload(image, wrong)
    assert answer.status == 400
    assert b"The data is not what was signed" in answer.body
    assert cloud.files("fast") == before
    assert cloud.ann.show(image)["status"] == "queued"
    assert cloud.ann.upload(image, DATA[:-1]).status == 400
    assert cloud.ann.upload(image, iter([DATA[:1000], DATA[1000:]])).status == 204
    assert cloud.ann.show(image)["status"] == "active"


WRONG = {
    "is no id": {"img_signature_certificate_uuid": "../secret"},
    "has none of this id": {"img_signature_certificate_uuid": "nobody"},
    "has expired": {"img_signature_certificate_uuid": "old"},
    "does not count yet": {"img_signature_certificate_uuid": "young"},
    "is no X.509 certificate": {"img_signature_certificate_uuid": "junk"},
    "is none of type DSA": {"img_signature_key_type": "DSA"},
    "must be one of RSA-PSS, DSA": {"img_signature_key_type": "RSA"},
    "must be one of SHA-224": {"img_signature_hash_method": "MD5"},
    "is not written in base64": {"img_signature": "ä"},
    "The data is not what was signed": {"img_signature": "AAAA"},
}


@pytest.mark.parametrize("why", WRONG)
def test_what_can_be_no_signature(cloud: Cloud, why: str) -> None:
    image = cloud.ann.new(**{**signed("RSA-PSS", "SHA-256"), **WRONG[why]})
    answer = cloud.ann.upload(image, DATA)
    assert (answer.status, why in answer.body.decode()) == (400, True), answer.body
    assert cloud.ann.show(image)["status"] == "queued"


def test_three_properties_are_no_signature(cloud: Cloud) -> None:
    properties = signed("RSA-PSS", "SHA-256")
    del properties["img_signature_key_type"]
    assert cloud.ann.show(cloud.ann.new(b"x", **properties))["status"] == "active"


def test_imports(cloud: Cloud) -> None:
    image = cloud.ann.new(**signed("ECC_SECP384R1", "SHA-384"))
    assert stage(cloud.ann, image, DATA).status == 204
    assert begin(cloud.ann, image).status == 202
    assert ended(cloud.ann, image)["status"] == "success"
    assert cloud.ann.download(image).body == DATA
    image = cloud.ann.new(**signed("ECC_SECP384R1", "SHA-384"))
    before = cloud.files("fast")
    stage(cloud.ann, image, DATA[:-1] + b"x")
    assert begin(cloud.ann, image).status == 202
    told = ended(cloud.ann, image)
    assert told["status"] == "failure"
    assert "not what was signed" in told["message"]
    assert cloud.files("fast") == before
    assert cloud.ann.show(image)["status"] == "queued"
    image = cloud.ann.new(**signed("RSA-PSS", "SHA-256", certificate="old"))
    stage(cloud.ann, image, DATA)
    assert begin(cloud.ann, image).status == 400  # told at once
