"""The connection between both programs: asyncio around the sans-I/O core of fullsend_protocol, once for both sides.

    throttle   `--bwlimit`: which connection may send its next bytes, and when
    turns      how much all connections of a daemon read in one turn of the loop
    channel    one TLS connection to a peer: frames out, events in, heartbeats, the end
    dial       the TCP connection to a host of several addresses

Both programs import it; it imports fullsend_protocol and nothing else of fullsend.
"""
