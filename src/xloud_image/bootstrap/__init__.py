"""What an administrator does once: the database and its user, the service's place in Keystone."""
