"""The records of a stored stream, which stream builds on which, and how both programs print them."""
