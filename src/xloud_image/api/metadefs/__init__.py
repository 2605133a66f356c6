"""The calls of metadata definitions: their handlers, their JSON and their rows of the table of calls."""
