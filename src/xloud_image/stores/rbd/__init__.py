"""Stores of type rbd: images of Ceph's block device, in threads."""
