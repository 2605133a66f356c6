"""Stores of type file: directories of a file system, in threads."""
