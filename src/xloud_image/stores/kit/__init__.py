"""What several types of stores need: threads, HTTP, Keystone. No type of store is known here."""
