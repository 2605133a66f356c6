"""Conversion of disk images: the NBD server against its real clients, the walls, every format, and what is hostile."""
