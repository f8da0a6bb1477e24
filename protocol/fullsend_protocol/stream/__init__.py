"""ZFS send streams: their records, their identity, chunks of them, and how two parts of a cut stream are joined."""
