"""`fullsend drill`: restores a stored snapshot into a scratch place, compares it with the one here, and destroys it."""
