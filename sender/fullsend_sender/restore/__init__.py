"""`fullsend restore` and `fullsend cat`: find the streams that bring a snapshot back, and receive them."""
