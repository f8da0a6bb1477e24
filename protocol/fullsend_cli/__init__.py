"""What the command lines of both programs have in common.

    descriptors   open 0, 1 and 2 where the caller has closed them
    documents     a result that is a document: to a file, or to stdout
    memory        settings of the C library's allocator
    late_positionals   positional arguments behind options
    output        results on stdout; a failed write is an error
    progress      one line that shows how far something is
    screen        the whole terminal, for a picture that is drawn again and again
    top           the transfers that are under way
    tables        tables and colours for a terminal
    running       a command, from its command line to its exit code

Neither neighbour is the place for it: fullsend_protocol touches no descriptor, and fullsend_transport is the
connection. Both programs import it; of fullsend, it imports fullsend_protocol alone. Every command loads it, also
`--version`, so it imports nothing slow.
"""
