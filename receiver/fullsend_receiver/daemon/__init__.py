"""`fullsendd serve`: connections, and the answers to what is asked on them."""
