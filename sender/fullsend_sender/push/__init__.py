"""`fullsend push`: what is to be sent, sending it, and removing our old snapshots."""
