"""A stream that arrives: admission, chunks in order, commit; and the room that it may take."""
