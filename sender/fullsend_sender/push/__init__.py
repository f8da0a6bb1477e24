"""`fullsend push`: plan what to send, send it, and prune fullsend's old snapshots."""
