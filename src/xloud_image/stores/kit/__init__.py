"""What several types of stores need: threads, bytes on their way, HTTP, Keystone. No type of store is known here."""
