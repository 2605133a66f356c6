"""What schemathesis must be told about this API; it loads this file by itself."""

import schemathesis
from hypothesis import strategies as st

from xloud_image.patch import MEDIA_TYPES

schemathesis.serializer.alias(list(MEDIA_TYPES), "application/json")

_QCOW2 = bytes.fromhex("514649fb00000003") + bytes(16) + (1 << 20).to_bytes(8, "big") + bytes(480)
schemathesis.openapi.media_type(
    "application/octet-stream", st.one_of(st.binary(max_size=64), st.sampled_from([_QCOW2, bytes(70_000), b""]))
)
