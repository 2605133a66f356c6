"""Metadata definitions as documents: their JSON schemas, files of them, and those that come with the service. No row of
the database, no right.
"""
