"""Making an identity against a test's Keystone, and counting how often Keystone is asked."""

import contextlib

from xloud_image import identity
from xloud_image.config.settings import AuthSettings, KeystoneSettings
from xloud_image.policy import Policy

NOT_OF_THE_PLUGIN = ("www_authenticate_uri", "auth_type", "region_name")


def settings_for(keystone, *, auth=None, **more):
    section = keystone.authtoken()
    plugin = {name: value for name, value in section.items() if name not in NOT_OF_THE_PLUGIN}
    common = {"www_authenticate_uri": section["www_authenticate_uri"], "region_name": section["region_name"]}
    return KeystoneSettings(auth={**plugin, **(auth or {})}, **{**common, **more})


@contextlib.asynccontextmanager
async def started(settings, *, anonymous=False):
    """A started identity with `asked`: how often Keystone was to be asked."""
    made = identity.build(
        AuthSettings(method="keystone", keystone=settings, allow_anonymous_access=anonymous), Policy()
    )
    made.asked = 0
    validate = made._validator.validate

    async def counted(text, *, expired):
        made.asked += 1
        return await validate(text, expired=expired)

    made._validator.validate = counted
    await made.start()
    try:
        yield made
    finally:
        await made.aclose()


def headers(token, service=None):
    return {"X-Auth-Token": token, **({"X-Service-Token": service} if service else {})}
