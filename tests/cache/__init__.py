"""The image cache of a node: its directory, reads from it, what goes wrong, its calls and its commands."""
