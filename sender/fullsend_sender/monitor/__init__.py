"""`fullsend check`, `status` and `verify`: whether a push would work, and how the backups are."""
