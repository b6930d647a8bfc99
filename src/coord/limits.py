"""Every bound, in one place; the relations between them are asserted at import.

Full means push back: a reader stops reading, a caller gets `ResourceExhausted`, a slow watch falls back to history.
Nothing acknowledged is ever dropped. A limit whose name ends in `_DEFAULT` is the default of a flag.
"""

from __future__ import annotations

from typing import Final

KIB: Final = 1024
MIB: Final = 1024 * KIB
GIB: Final = 1024 * MIB

# Requests, as etcd's flags have them.
MAX_REQUEST_BYTES_DEFAULT: Final = 1536 * KIB
MAX_TXN_OPS_DEFAULT: Final = 128
LEASE_TTL_S_MAX: Final = 9_000_000_000
REQUEST_TIMEOUT_MS_DEFAULT: Final = 5_000
REQUEST_TIMEOUT_MS_MAX: Final = 600_000

# Frames on a client link. A frame is larger than a request by what surrounds it, as gRPC's receive limit is.
FRAME_BYTES_MAX: Final = MAX_REQUEST_BYTES_DEFAULT + 512 * KIB
FRAGMENTS_PER_MESSAGE: Final = 64
CBOR_DEPTH_MAX: Final = 400
CBOR_ITEMS_MAX: Final = 256 * KIB
CBOR_SCAN_FROM_BYTES: Final = 64 * KIB
"""Frames below this cannot hold enough items to hurt; above it, items are counted before decoding."""
REPLY_BYTES_MAX: Final = 64 * MIB
"""One reply; a range that would be larger is refused and has to be paged with `limit`."""
WATCH_FRAGMENT_BYTES: Final = MAX_REQUEST_BYTES_DEFAULT + 512 * KIB
TXN_DEPTH_MAX: Final = MAX_TXN_OPS_DEFAULT + 1
"""What the default number of operations allows: one a level, around an empty transaction. It holds where that number
is set higher too, so that no walk of a transaction comes near Python's bound on recursion."""

# A connection.
REQUESTS_OPEN_PER_CONNECTION: Final = 16_384
WATCHES_PER_CONNECTION: Final = 100_000
SEND_BUFFER_HIGH_BYTES: Final = 1 * MIB
"""Above this the connection is not read and its watches fall back to history."""
SERVER_MESSAGE_BYTES_MAX: Final = REPLY_BYTES_MAX + SEND_BUFFER_HIGH_BYTES
"""The most that a node sends in one message: what gathers below the mark, and one reply."""
SEND_BUFFER_HARD_BYTES: Final = 128 * MIB
HANDSHAKE_TIMEOUT_S: Final = 5.0
HANDSHAKES_PENDING_MAX: Final = 512
HTTP_HEAD_BYTES_MAX: Final = 8 * KIB
MESSAGE_COMPLETE_TIMEOUT_S: Final = 10.0
WRITE_STALL_TIMEOUT_S: Final = 10.0
PING_IDLE_S: Final = 5.0
PING_GIVE_UP_S: Final = 10.0
CONTROL_FRAMES_PER_SECOND: Final = 128
CLOSE_TIMEOUT_S: Final = 1.0
"""How long a closing link waits for the other side to take what is left and to close too."""
CONNECTIONS_MAX: Final = 10_000

# Links between members.
PEER_FRAME_BYTES: Final = 2 * MIB
"""Messages to one member share a frame up to about this size; a larger message has one of its own."""
PEER_FRAME_BYTES_MAX: Final = 48 * MIB
"""What a member takes in one frame: more than the largest entry, whatever --max-request-bytes says there."""
PEER_SEND_BUFFER_HIGH_BYTES: Final = 32 * MIB
"""Above this, entries to a member are dropped, and small messages go on: Raft sends them again. Its own bound for what
is under way is lower, so that this one is met only when the network stands still."""
PEER_DIAL_TIMEOUT_S: Final = 2.0
"""To connect, shake hands and be answered the hello."""
PEER_REDIAL_S_MIN: Final = 0.05
PEER_REDIAL_S_MAX: Final = 1.0
PEER_PING_IDLE_S: Final = 1.0
PEER_PING_GIVE_UP_S: Final = 3.0
PEER_LINKS_MAX: Final = 256
"""Links of members that are served at a time, handshakes included."""

# Members.
LEARNER_LAG_ENTRIES_MAX: Final = 5_000
"""A learner further behind is not made a voter by itself."""
LEARNERS_MAX: Final = 4
"""A learner costs the leader as much as a voter does; members that were added to vote begin as learners too."""
PEER_URLS_MAX: Final = 16
MEMBER_CHANGES_PENDING_MAX: Final = 64

# Node queues.
PROPOSAL_BYTES_PENDING_MAX: Final = 64 * MIB
PROPOSALS_PENDING_MAX: Final = 65_536
"""Clients' frames that are not applied yet."""
ENTRY_FRAMES_MAX: Final = 256
"""Frames that share an entry: applying them takes some 2 ms at most where each holds little."""
ENTRY_BYTES_SHARED_MAX: Final = 32 * KIB
"""What clients wrote in the frames that share an entry: of more there is nothing to save, and beyond 128 KiB each copy
of it is a mapping of its own."""
INTERNAL_RESERVE: Final = 1_024
"""The share of the proposal queue that only internal entries may use (S11)."""
READS_PENDING_MAX: Final = 65_536
TURN_BUDGET_S: Final = 0.005
OVERLAY_BYTES_MAX: Final = 128 * MIB
"""Applied but not yet flushed records; above it apply waits for the store."""
FLUSH_BYTES: Final = 8 * MIB
FLUSH_INTERVAL_S: Final = 0.4
"""Each flush stores anew the answers that its clients have not closed, a thousand of them where as many wait: eight
flushes a second took a twentieth of a busy member's loop."""
VALUE_CACHE_BYTES: Final = 32 * MIB
STORE_MAPPED_BYTES_MAX: Final = 96 * MIB
"""How much of the store's file, and of code, may stay mapped in memory."""
LOG_BYTES_IN_MEMORY_MAX: Final = 64 * MIB
LOG_BYTES_OPEN_MAX: Final = 64 * MIB
"""Entries that are not on the own disk, or not applied; above it a leader takes no more from the other members."""
LOG_BYTES_UNAPPLIED_MAX: Final = 2 * LOG_BYTES_OPEN_MAX
"""Entries that a follower holds without having applied them; above this it takes no more until its store has room."""
LOG_BYTES_CATCHING_UP_MAX: Final = 512 * MIB
"""The log in memory while a member is brought up to date: what is written under load during one snapshot, a minute."""
STORE_SYNC_ENTRIES_MAX: Final = 5_000
"""The store is synced at the latest after so many entries: a restart replays no more."""
CATCH_UP_ENTRIES: Final = 20_000
"""So many entries stay in memory behind those that the store has, for members that are not far behind."""
CATCH_UP_ENTRIES_MAX: Final = 100_000
"""So many stay for one that is being brought up to date just now."""

# Replication to one follower.
INFLIGHT_MESSAGES_MAX: Final = 64
"""Appends with entries that were sent to a follower and not answered."""
INFLIGHT_BYTES_MAX: Final = 16 * MIB
"""Their entries' bytes; at least one append is always in flight, however large."""
APPEND_BYTES_MAX: Final = 1 * MIB
"""Entries of one append; one entry always goes, however large."""
CATCH_UP_BYTES_PER_TICK: Final = 512 * KIB
"""Entries that a follower which is late is sent in a tick at least, 26 MB/s, while others are written."""

FORWARD_BYTES_MAX: Final = 16 * MIB
"""Writes that were sent to the leader and are not answered by it; at least one frame goes, however large."""

# WAL.
WAL_BLOCK_BYTES: Final = 512
WAL_SEGMENT_BYTES: Final = 64 * MIB
WAL_BATCH_BYTES_MAX: Final = 16 * MIB
WAL_BYTES_BEFORE_SYNC: Final = 2 * WAL_SEGMENT_BYTES
"""After this much of log the store is synced, however few entries that was, so that segments can be released."""

# Snapshot files.
SNAPSHOT_CHUNK_BYTES: Final = 1 * MIB
SNAPSHOT_BYTES_PER_S: Final = 64 * MIB
"""All snapshots that a member sends together, so that heartbeats find room beside them (S6)."""
SNAPSHOT_SHARE: Final = 1 / 2
"""Of one processor's time, to write, stage and load one; less where others wait for it."""

# Leases and watches.
LEASES_EXPIRED_PER_ENTRY: Final = 500
LEASES_CHECKPOINTED_PER_ENTRY: Final = 1_000
LEASES_PER_TICK: Final = 5_000
"""The reaper looks at no more at once, some 5 ms; the others wait for the next tick."""
WATCH_PROGRESS_INTERVAL_S_DEFAULT: Final = 600.0
WATCH_CATCH_UP_REVISIONS: Final = 1_000
WATCH_CATCH_UP_WATCHES: Final = 512
"""One scan of history feeds no more watches, and no more revisions."""

# Exactly once.
CLIENT_WINDOW: Final = 1_024
PUTS_AT_ONCE_MAX: Final = 10_000
"""Of one `put_many`: they wait in the client's memory for the window; more are refused before any is sent."""
ANSWER_BYTES_KEPT: Final = 1_024
CLIENT_RECORDS_MAX: Final = 10_000

# Ranges and compaction, in slices that do not stall the loop.
RANGE_SLICE_KEYS: Final = 2_000
COMPACTION_SLICE_KEYS: Final = 500
COMPACTION_FLUSH_RECORDS: Final = 20_000
"""Removed records that may wait to be flushed."""
COMPACTION_SHARE: Final = 1 / 8
"""Of the time while there is other work: some 30 000 records a second."""
COMPACTION_SHARE_BEHIND: Final = 1 / 3
"""While the next compaction waits already: more is written than that share removes, and would pile up without end."""
COMPACTION_TURN_S: Final = 0.002
COMPACTION_REST_S_MAX: Final = 0.5

# Space.
QUOTA_BACKEND_BYTES_DEFAULT: Final = 2 * GIB
QUOTA_CLEAR_RATIO: Final = 0.9
SPACE_REPORT_INTERVAL_S: Final = 5.0
"""A member tells the leader its sizes so often, and at once when they cross a bound."""
SPACE_RESERVE_BYTES: Final = 64 * MIB

assert FRAME_BYTES_MAX > MAX_REQUEST_BYTES_DEFAULT
assert CBOR_SCAN_FROM_BYTES <= CBOR_ITEMS_MAX
assert WAL_BATCH_BYTES_MAX < WAL_SEGMENT_BYTES
assert WAL_BATCH_BYTES_MAX > 2 * FRAME_BYTES_MAX
assert APPEND_BYTES_MAX < INFLIGHT_BYTES_MAX
assert ENTRY_BYTES_SHARED_MAX < APPEND_BYTES_MAX
assert FLUSH_BYTES < OVERLAY_BYTES_MAX
assert SEND_BUFFER_HARD_BYTES > REPLY_BYTES_MAX + SEND_BUFFER_HIGH_BYTES
assert INTERNAL_RESERVE < PROPOSALS_PENDING_MAX
# What one tick proposes at most is a small part of what may wait.
assert LEASES_PER_TICK // LEASES_CHECKPOINTED_PER_ENTRY < INTERNAL_RESERVE // 8
assert PING_IDLE_S < PING_GIVE_UP_S
assert PEER_PING_IDLE_S < PEER_PING_GIVE_UP_S
assert PEER_FRAME_BYTES < PEER_FRAME_BYTES_MAX
assert PEER_FRAME_BYTES_MAX > 2 * WAL_BATCH_BYTES_MAX
assert INFLIGHT_BYTES_MAX + PEER_FRAME_BYTES < PEER_SEND_BUFFER_HIGH_BYTES
assert PEER_FRAME_BYTES_MAX < SEND_BUFFER_HARD_BYTES - PEER_SEND_BUFFER_HIGH_BYTES
# A level takes three arrays: the transaction, a branch, an operation; the reply of a range stands deepest.
assert TXN_DEPTH_MAX * 3 + 6 < CBOR_DEPTH_MAX
# The deepest walk takes two frames a level, and a server's own stack is below 200 of the 1000 that Python allows.
assert TXN_DEPTH_MAX * 2 < 500
