"""`fullsend restore` and `fullsend cat`: which streams bring a snapshot back, and bringing them."""
