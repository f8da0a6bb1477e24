"""`fullsendd serve`: connections, and the answers to requests on them."""
