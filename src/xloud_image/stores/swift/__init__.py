"""Stores of type swift: containers of OpenStack's object storage."""
