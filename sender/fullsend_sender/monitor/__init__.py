"""`fullsend check`, `status` and `verify`: whether a push would work, and the state of the backups."""
