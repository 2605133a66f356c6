"""The image cache of one node: files in a directory that its processes share. Knows no image, right or store.

What is cached when, and from where, is said in `services.caching`.
"""
