"""The identity of the receiver, the senders that may talk to it, and its setup."""
