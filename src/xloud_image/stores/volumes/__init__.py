"""The parts of the cinder backend: accounts, Cinder's API, attaching here. The contract itself is in `cinder`."""
