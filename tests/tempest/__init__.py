"""OpenStack's own tests of the Image API (Tempest and Glance's plugin of it) against the service, with a real Keystone:
`make test-tempest`. What of them is run, and what is left out, and why.
"""

from typing import Final

# What is run: every test of Tempest and of the plugin that asks an image service and Keystone only.
WHAT: Final = r"^(tempest\.api\.image|glance_tempest_plugin)\."

# Tests that do not pass, by the end of their name: why. Only what does not pass on Glance 33 either. Each is run all
# the same; one that passes fails the run, so that it is taken from here.
KNOWN: Final[dict[str, str]] = {}
