"""Every limit that both sides keep, with its reason. Code compares with it before it allocates memory.

Sizes are bytes, times seconds.
"""

from __future__ import annotations

from typing import Final

MIB: Final = 1 << 20

#: The only protocol version so far. A daemon will speak the current and the previous one.
PROTOCOL_VERSION: Final = 1

#: A chunk closes after the first resumable record whose end lies this far from the chunk's start. 4 MiB: frames
#: of that size compress as well as one long stream (measured: 2.50 against 2.49), and about four fit in cache.
CHUNK_MIN: Final = 4 * MIB
#: ... else at exactly this size: CHUNK_MIN plus the largest record payload that OpenZFS writes (16 MiB). So almost only
#: runs of records that are not resumable (FREE) are cut inside a record. (A record of 16 MiB is cut, if its 312-byte
#: header begins within the last 311 bytes before CHUNK_MIN.)
CHUNK_MAX: Final = 20 * MIB

#: Raw offsets are below this everywhere, so that a signed 64-bit integer holds them: 8 EiB.
OFFSET_END: Final = 1 << 63

#: SPA_MAXBLOCKSIZE of OpenZFS (include/sys/spa.h): no record carries a longer payload.
RECORD_PAYLOAD_MAX: Final = 16 * MIB
#: The nvlists in BEGIN records: of one, and of all that a side keeps of a stream. A package's names every snapshot.
#: OpenZFS reads up to 64 MiB (libzfs_max_nvlist). Both sides hold it whole in memory, and 16 MiB is about 100,000
#: snapshots.
BEGIN_PAYLOAD_MAX: Final = 16 * MIB
#: The nvlist in the BEGIN of a raw substream, from which its IV sets are read: OpenZFS writes 1 KiB. It is not kept, so
#: the limit above does not count it, and a package has many.
BEGIN_KEYS_MAX: Final = 64 << 10
#: Substreams of one package. What both sides remember of each, and the manifest that names it, take about 1 KiB.
SUBSTREAMS_MAX: Final = 32768

#: The zstd window of a chunk. One-shot decoding needs no window beyond the chunk. The limit is for readers that
#: decode as they read, and keeps stock `zstd -d` far below its own 128 MiB limit.
WINDOW_LOG_MAX: Final = 22

#: ZSTD_COMPRESSBOUND(CHUNK_MAX) is CHUNK_MAX + CHUNK_MAX / 256: an incompressible chunk with its block headers.
CHUNK_FRAME_MAX: Final = CHUNK_MAX + CHUNK_MAX // 256 + 64
#: SHA-256, in bytes.
DIGEST_SIZE: Final = 32

#: A control message. The longest are a page of `entries` and the segments of a stream.
CONTROL_MAX: Final = 1 * MIB
#: The one frame that a peer may send before it is identified: a certificate in base64 is about 1 KiB.
UNIDENTIFIED_MAX: Final = 16 << 10
#: A heartbeat's reason is a word.
HEARTBEAT_MAX: Final = 64

#: Segments of one stream. Each interruption adds some, and a stream that was interrupted too often starts over. 1,000
#: segments are about 130 KiB of JSON, well within CONTROL_MAX.
SEGMENTS_MAX: Final = 1000
#: ... of which each resumption may add so many: what was sent and must be hashed again, and what is read from then on.
SEGMENTS_RESUMED: Final = 2
#: Snapshots of a package that its manifest names in `sending`; a larger package's manifest names none. At most 1.7 KiB
#: each (names that JSON must escape). With SEGMENTS_MAX segments, as many resumptions and PROPERTIES_MAX the message
#: stays within CONTROL_MAX.
SNAPSHOTS_SENT: Final = 340
#: Characters of a dataset's local properties, names and values together, and one more for each: some users write notes
#: into them. JSON may make six bytes of each character.
PROPERTIES_MAX: Final = 32 << 10
#: Embedded spill blocks that a walker, a manifest and a receipt name of one stream: enough to show what kind they are.
#: A stream may have millions. Each name is at most 1.5 KiB in JSON.
EMBEDDED_SPILLS_MAX: Final = 16
#: Datasets in one `unchanged` message: two names, which `zfs` restricts to ASCII, and a GUID are at most 600 bytes. A
#: message of a `status` answer adds three times: 700 bytes.
DATASETS_PAGE: Final = 1200
#: Streams in one `partials` message: two names, at most 3 KiB where JSON must escape them, and some numbers.
PARTIALS_PAGE: Final = 200
#: Streams in one `bases` message, bases at most 500 bytes each. A page with many damaged ones, which have more names,
#: is divided until it fits.
BASES_PAGE: Final = 2000
#: Entries in one `entries` or `merged` message: about 700 bytes each, at most 2 KiB, so that a page stays within
#: CONTROL_MAX.
ENTRIES_PAGE: Final = 200
#: Nights in the history of one dataset: thirteen weeks.
HISTORY_NIGHTS: Final = 91
#: Datasets in one `history` message: nights of at most 150 bytes each, so that a page stays within CONTROL_MAX.
HISTORIES_PAGE: Final = 50
#: Characters of what a restore drill has found: one line for a person.
DRILL_TEXT_MAX: Final = 500
#: Datasets in one `drills` message: two names and a text, at most 6.5 KiB where JSON must escape them.
DRILLS_PAGE: Final = 100
#: Bytes before the first record of a snapshot, in `head`: two BEGIN records, the properties of -p, and the keys of a
#: raw stream, some KiB together. In base64 it stays within CONTROL_MAX.
HEAD_MAX: Final = 512 << 10

#: Bytes of a path, or of a pattern, in `files?`: PATH_MAX of Linux.
FILES_PATH_MAX: Final = 4096
#: Paths in one `files?`: in base64, with patterns and a stream's name, they stay within CONTROL_MAX.
FILES_PATHS: Final = 100
#: Patterns in one `files?`: the same.
FILES_NAMES: Final = 20
#: Bytes in one `part`: in base64 it stays within CONTROL_MAX.
FILES_PART: Final = 512 << 10
#: Lines in one `files`: what could not be given back is named for so many files; the others are counted.
FILES_SAID: Final = 25

#: MAXNAMELEN of OpenZFS is 256 with the NUL.
NAME_MAX: Final = 255

#: A side that has sent nothing for this long sends a heartbeat.
HEARTBEAT_EVERY: Final = 10.0
#: A side that is reading and has received nothing for this long counts the peer as dead: three heartbeats.
SILENCE: Final = 30.0
#: From accept to an identified peer, TLS handshake included; the sender waits as long.
IDENTIFY_WITHIN: Final = 10.0
#: After the last message: how long the other side may take to read it and close.
LINGER: Final = 3.0
