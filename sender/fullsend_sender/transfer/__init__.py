"""A connection to a receiver, and the transfer of one stream over it: pipeline, window, retry, resume."""
