"""Xloud Image Service: an OpenStack Image API v2 service over many stores."""

__version__ = "0.1.0"
