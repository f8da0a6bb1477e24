"""ZFS send streams: their records, what they say of themselves, chunks of them, and how a cut one is joined."""
