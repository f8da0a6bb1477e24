"""What is written down of a stored stream, which stream builds on which, and how both are shown."""
