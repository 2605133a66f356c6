"""OpenStack's own tests of the Image API (Tempest and Glance's plugin of it) against the service, with a real Keystone:
`make test-tempest`. What is left out, and why.
"""

from typing import Final

# What is run: every test of Tempest and of the plugin that asks an image service and Keystone only.
WHAT: Final = r"^(tempest\.api\.image|glance_tempest_plugin)\."

# Tests that do not pass, by the end of their name: why. Each is run all the same; one that passes
# fails the run, so that it is taken from here.
_DIGESTS = "the data of a new location is read: its digests are made and shown, without validation_data, too"
_COMPARED = "validation_data of another digest than the data has is refused, by PATCH as well"
KNOWN: Final[dict[str, str]] = {
    ".ImageLocationsAdminTest.test_delete_locations": _DIGESTS,
    ".ImageLocationsTest.test_replace_location": _DIGESTS,
    ".ImageLocationsTest.test_set_location_with_hash": _COMPARED,
    ".ImageLocationsTest.test_set_location_with_hash_not_matching": _COMPARED,
    ".ImageLocationsTest.test_set_location_with_hash_second_matching": _COMPARED,
    ".ImageLocationsTest.test_set_location": _DIGESTS,
    ".test_add_location_for_image_with_do_secure_hash_true": "a location that was refused is removed from the image, "
    "of a web server as well; upstream keeps it there, by a bug that the test names",
    ".test_hash_calculation_cancelled": "its web server is on the service's own node, where no URL may lead",
}
