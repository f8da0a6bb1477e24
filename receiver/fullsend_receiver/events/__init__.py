"""What happens, as records that programs read: the log and the event journal have them, hooks are run for them.

records   the events, each with its fields
emit      says that one has happened
"""
