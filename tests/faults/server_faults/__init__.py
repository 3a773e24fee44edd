"""Scenarios in which not services but the servers under them fail."""
