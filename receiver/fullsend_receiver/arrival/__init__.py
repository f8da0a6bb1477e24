"""Arriving streams: admission, chunks in order, commit; and the disk space that they may take."""
