"""What the rbd store does inside Ceph, in threads: the connection, images being written and read, removing them."""
