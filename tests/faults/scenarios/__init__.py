"""Scenarios that need services and one server."""
