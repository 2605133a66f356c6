"""Stores of type memory: for tests of everything else. What is in them goes with the process."""
