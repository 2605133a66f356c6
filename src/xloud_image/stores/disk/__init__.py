"""The thread side of the file store: system calls that block for as long as a file system does. No event loop here."""
