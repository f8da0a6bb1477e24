"""Everything that runs on the ZFS host: `fullsend` sends streams to a receiver and restores them."""
