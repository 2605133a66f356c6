"""Disk images from one format into another, by qemu's tools in a sandbox: bytes in, bytes out.

`disk.open_disk` gives the raw bytes of a disk in order, without a temporary file, from any `Source` with ranges;
`convert.to_file` makes a file of another format. qemu sees the source as an NBD export (`nbd`) on a socket that is
handed to it, and nothing else of the machine (`sandbox`). Knows no image, no store, no configuration.
"""
