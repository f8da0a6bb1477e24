"""The connection between both programs: asyncio around the sans-I/O core of fullsend_protocol, once for both sides.

    throttle   `--bwlimit`: when the next bytes may go out
    channel    one TLS connection to a peer: frames out, events in, heartbeats, the end
    dial       the TCP connection to a host of several addresses

Both programs import it; it imports fullsend_protocol and nothing else of fullsend.
"""
