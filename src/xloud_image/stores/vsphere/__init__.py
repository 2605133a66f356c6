"""Parts of the vmware store: its options and URLs, its session with the server, files on datastores."""
