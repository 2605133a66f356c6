"""The parts of the s3 store: addresses, signatures, requests, a write in parts, a read in windows. No contract here."""
