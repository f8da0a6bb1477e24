"""The language that fullsend (the sender) and fullsendd (the receiver) speak.

Sans-I/O: nothing here opens a file, a socket or a process, and nothing waits (fullsend_transport does). Bytes come in,
events go out; messages become bytes. The rooms, the lowest first:

    shared    errors, exit codes, limits, units, configuration text to model
    stream    the reader of ZFS send streams, chunks of them, and how two parts of a cut stream are joined
    format    the manifest of a stored stream, and which stream builds on which
    wire      frames, messages, and one connection: the state table, bytes to events and back
"""

__version__ = "0.1.0"
