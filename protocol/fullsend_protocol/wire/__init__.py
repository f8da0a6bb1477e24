"""The wire: frames, messages, the state table of a connection, and how two hosts are paired."""
