/* Planted bugs: broken variants of the protocol that the checkers must find.
 *
 * `PLANTED(id)` is constant false, and costs nothing, unless the file is compiled with
 * -DFTMB_PLANTS, which only the simulator's own copy of core and nf is. There one bug at a time is
 * chosen at run time. Most come from the review of the protocol, which found each of them to break
 * an invariant; docs/SIMULATOR.md says which checker finds which, and after how many schedules. */
#ifndef FTMB_CORE_PLANT_H
#define FTMB_CORE_PLANT_H

#include <stdbool.h>

enum plant_id {
    P_NONE = 0,
    /* Release and vectors. */
    P_NO_CONTIGUITY = 1,
    P_PUBLISH_AFTER_UNLOCK = 2,
    P_VECTOR_BEFORE_LAST = 3,
    P_VECTOR_AT_ACQUIRE = 4,
    P_VECTOR_PER_PACKET = 5,
    /* Replay and cut. */
    P_FREE_RUNS_AHEAD = 6,
    P_WRITER_IGNORES_READERS = 7,
    P_READS_NOT_LOGGED = 8,
    P_NO_CUT = 9,
    P_CUT_WITHOUT_BASE = 10,
    P_READER_NEEDS_WRITER = 11,
    /* Fence. */
    P_KEEP_HELD = 12,
    P_KEEP_LOG = 13,
    P_OLD_FRAMES = 14,
    /* Commit and snapshots. */
    P_COMMIT_WITHOUT_OL = 15,
    P_COMMIT_PALS_ONLY = 16,
    P_NO_BARRIER = 17,
    P_ONLY_WRITES_GATED = 18,
    P_FLIP_IN_REPLAY = 19,
    /* Sections. */
    P_CUT_SPLITS_SECTIONS = 20,
    P_FRAME_SPLITS_SECTIONS = 21,
    P_EARLY_UNLOCK = 22,
    /* A restarted output logger. */
    P_OL_FORGETS_PALS = 23,
    P_OL_HOLDS_FOR_COMMIT = 24,
    /* Handshakes. */
    P_STOP_BEFORE_BUSY = 25,
    P_LINE_APPEND_FIRST = 26,
    P_LINE_STAMP_FIRST = 27,
    P_LINE_NO_WAIT = 28,
    P_BUMP_ONCE = 29,
    /* Network functions. */
    P_NAT_PORT_TWICE = 30,
    P_NAT_MAPPING_CHANGES = 31,
    P_NF_CLOCK = 32,
    P_MONITOR_LOST_UPDATE = 33,
    P_NAT_NO_SECOND_LOOK = 34,
    P_NAT_PORT_OUTSIDE_SECTION = 35,
    P_NF_RANDOM = 36,
    P_NF_STATIC_STATE = 37,
    /* Found by thought, not by the explorer (findings H2 to H10, I3, I5). */
    P_NO_PROBE = 38,
    P_DETERMINANT_ANEW = 39,
    P_PROMOTE_PREPARED = 40,
    P_RELEASED_AFTER_HANDOVER = 41,
    P_OL_ACKS_ON_ARRIVAL = 42,
    P_IL_COUNTS_BEFORE_FILLED = 43,
    P_NO_CREDIT = 44,
    P_SILENCE_FENCES_ALWAYS = 45,
    P_DELTA_ON_UNCOMMITTED = 46,
    P_IL_TRIMS_ON_PREPARED = 47,
    P_REPLAY_WAITS_FOR_ROOM = 48,
    /* Marks, epochs and builds. */
    P_STAMP_BEFORE_READ = 49,
    P_UNDO_FULL_IGNORED = 50,
    P_LOST_FORGETS = 51,
    P_HEADER_AT_FLIP = 52,
    P_FLIP_TOO_EARLY = 53,
    P_NF_NO_MARK = 54,
    P_SLICE_NOT_MARKED = 55,
    P_BUILD_ENDS_EARLY = 56,
    P_BUILD_TAKES_GAP = 57,
    P_BUILD_NOT_UNDONE = 58,
    P_NO_GATE = 59,
    P_NO_ROOM_FORGETS = 60,
    P_GIVE_UP_RACES = 61,
    P_BUILDER_SILENT = 62,
    P_IDLE_SEEN_ONCE = 63,
    P_PARKED_STALE = 64,
    P_CHECK_UNCLAIMED = 65,
    P_LATE_UNTOLD = 66,
    P_SUPERSEDED_UNTOLD = 67,
    /* Network functions again, and forgotten changes. */
    P_RATELIMIT_LOST_UPDATE = 68,
    P_FORGET_GOES_ON = 69,
    P_ANEW_KEEPS_BASE = 70,
    P_FIREWALL_TWO_ENTRIES = 71,
    P_LB_LOADS_OUTSIDE = 72,
    P_WANOPT_TWO_ENTRIES = 73,
    P_NAT_INSIDE_UNLOGGED = 74,
    P_NAT_NOTE_UNLOCKED = 75,
    P_IDS_LOST_UPDATE = 76,
    P_HANDOVER_UNFENCED = 77,
    P_CHAIN_ONE_NUMBERING = 78,
    P_CHAIN_DROPPED_LEAVES = 79,
    P_COUNT
};

#ifdef FTMB_PLANTS
extern unsigned ftmb_planted; /* the bug that is switched on */
#define PLANTED(id) __builtin_expect(ftmb_planted == (unsigned)(id), 0)
#else
#define PLANTED(id) false
#endif

#endif
