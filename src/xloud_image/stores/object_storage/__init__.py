"""The parts of the swift backend: accounts and tokens, URLs, requests, uploads. The contract itself is in `swift`."""
