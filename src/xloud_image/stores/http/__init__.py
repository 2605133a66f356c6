"""Stores of type http: data on web servers, read only."""
