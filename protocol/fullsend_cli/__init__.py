"""What the command lines of both programs do alike, once for both.

    descriptors   0, 1 and 2 are open, whatever the caller has closed
    memory        what the C library does with memory that is done with
    output        results on stdout; what cannot be written is an error
    running       a command, from the words of its command line to its exit code

It is a package of its own, because neither of its neighbours is the place: fullsend_protocol touches no descriptor, and
fullsend_transport is the connection. Both programs import it; of fullsend, it imports fullsend_protocol alone. It is
loaded for every command, `--version` too, so it imports nothing that takes long.
"""
