"""Stores of type cinder: volumes of OpenStack's block storage."""
