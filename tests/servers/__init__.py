"""Real servers for tests and measurements: one module each, on loopback, in a folder of its own.

Each class has `start()`, `stop()` and the address as a property. A server that is not installed raises
`Missing` with what to install. What a server does for a test belongs to the test, not here.
"""

from tests.servers.place import Missing
from tests.servers.process import Stuck

__all__ = ["Missing", "Stuck"]
