"""Disk images of every format, harmless and hostile, built by code: what the inspection must take and refuse."""
