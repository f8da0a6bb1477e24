"""A connection to a receiver, and one stream over it: pipeline, window, retry, resume."""
