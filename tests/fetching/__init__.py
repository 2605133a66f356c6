"""Tests of the fetcher: against web servers as they are, and such as they should not be."""
