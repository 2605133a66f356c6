"""Configuration: files and what they mean, as frozen `settings`. Nothing here opens a store, a database or a port."""
