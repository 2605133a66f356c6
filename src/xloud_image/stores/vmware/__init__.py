"""Stores of type vmware: datastores of vSphere."""
