"""The language that fullsend (the sender) and fullsendd (the receiver) speak.

Sans-I/O: nothing here opens a file, a socket or a process, and nothing here waits (fullsend_transport does). Bytes
come in, events go out; what is said becomes bytes. The rooms of this floor, from the ground up:

    errors, limits, units, exits   words and numbers everybody needs
    frames                         the header in front of everything on the wire
    manifest, messages             what is said, as pydantic models
    memory                         what the C library keeps of chunks that are done with
    connection                     who may say what when: the state table, and bytes <-> events
    nvlist, records, facts         the reader of ZFS send streams, and what a stream says of itself
    chunks                         where a stream is cut, how a chunk is compressed, hashed and checked
    fletcher, resume_token, splice how a stream that was cut goes on, byte for byte, at either end
    invitation, settings           the line that pairs two hosts; configuration text to model
"""

__version__ = "0.1.0"
