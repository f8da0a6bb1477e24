"""Checks of stored streams, beside all other work."""
