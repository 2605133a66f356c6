"""Bytes in flight: stages that look at a stream while it passes, and one stream for several readers. No store here."""
