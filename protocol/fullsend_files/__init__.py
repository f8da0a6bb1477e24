"""Files on this host that are made of what a stream has: for both programs, once.

    folder     files in a new or empty folder, which get their places when all of them are proven
    image      the image of a volume, as a sparse file
    troubles   what is made only when it is asked for, and what could not be made

Both programs import it; it imports fullsend_protocol and nothing else of fullsend. Names and attributes are
not trusted.
"""
