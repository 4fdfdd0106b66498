/* Which rare paths a run of schedules reached: counters with names, shown and tested to be > 0. */
#ifndef FTMB_SIM_COVERAGE_H
#define FTMB_SIM_COVERAGE_H

#include "core/base.h"

#define COVERAGE(X)                                                                                \
    X(FRAME_LOST, "frame lost")                                                                    \
    X(FRAME_REPEATED, "frame repeated")                                                            \
    X(FRAME_REORDERED, "frame reordered")                                                          \
    X(SENT_AGAIN, "missing frame sent again")                                                      \
    X(TAKEN_EARLY, "frame from beyond a gap taken in its turn")                                    \
    X(GO_BACK, "sender went back")                                                                 \
    X(PROBE, "highest number repeated (lost last frame)")                                          \
    X(PREEMPTED, "worker switched at a shared access")                                             \
    X(WAIT_TAKEN, "access waits for a taken variable")                                             \
    X(READ_AGAIN, "optimistic read begins again")                                                  \
    X(REFUSED_LOG, "input refused: input log full")                                                \
    X(REFUSED_CREDIT, "input refused: no credit")                                                  \
    X(TICK, "tick input")                                                                          \
    X(WINDOW_FULL, "worker waits for room in its window")                                          \
    X(WINDOW_REPLAY, "worker goes on in a replay with its window nearly full")                     \
    X(HELD, "output held for a PAL that is missing")                                               \
    X(COMMIT, "snapshot committed")                                                                \
    X(COMMIT_LATER, "snapshot prepared before its cut had arrived")                                \
    X(COMMIT_NEWS_LOST, "news of a commit lost")                                                   \
    X(DELTA, "snapshot sent as a difference")                                                      \
    X(FLIP_WAITS, "flip waits for a worker inside a packet")                                       \
    X(JOINED_BUSY, "worker joins an epoch between two packets of a burst")                         \
    X(JOINED_IDLE, "idle worker that counted as joined wakes up and joins")                        \
    X(SLEPT_THROUGH, "worker sleeps through a whole epoch")                                        \
    X(IDLE_WOKE, "idle worker wakes up while its cursor is read")                                  \
    X(GATE_WAITS, "worker waits at the gate")                                                      \
    X(UNDO_USED, "line of a snapshot comes from an undo log")                                      \
    X(UNDO_FULL, "undo log full: snapshot lost")                                                   \
    X(NO_ROOM, "no room for a delta: snapshot lost")                                               \
    X(CLAIM_RACED, "line claimed while it is read for a snapshot")                                 \
    X(LINE_WAITS, "worker waits while another saves a line")                                       \
    X(COLLECT_WAITS, "snapshot waits while a worker saves a line")                                 \
    X(GIVE_UP_WAITS, "lost snapshot is given up in several steps")                                 \
    X(ABANDONED, "snapshot abandoned, its lines marked again")                                     \
    X(BASE_GIVEN_UP, "only builders: deltas build on the base no more")                            \
    X(CHANGES_FORGOTTEN, "nobody holds or builds on: what has changed is forgotten")               \
    X(BEGUN_ANEW, "snapshots lost in a row: everything begins anew")                               \
    X(HOLDER_BUILDS, "backup with a base that was given up builds")                                \
    X(BUILT, "backup built the whole state from several slices")                                   \
    X(BUILD_GIVEN_UP, "build given up")                                                            \
    X(BUILDER_LATE, "build ended: the delta took too long")                                        \
    X(REFUSED, "delta refused")                                                                    \
    X(KILL_COLLECTING, "master killed while a delta is collected")                                 \
    X(PARKED, "worker parked for a cut")                                                           \
    X(KILL_MASTER, "master killed")                                                                \
    X(KILL_IN_PACKET, "master killed inside a packet")                                             \
    X(KILL_IN_SECTION, "master killed inside a section")                                           \
    X(KILL_WHILE_CUTTING, "master killed while it stops for a snapshot")                           \
    X(KILL_PREPARED, "master killed while a snapshot is prepared, not committed")                  \
    X(KILL_AGAIN, "new master killed before it is protected")                                      \
    X(KILL_IN_REPLAY, "new master killed while it replays")                                        \
    X(KILL_PROMOTING, "new master killed before its view began")                                   \
    X(KILL_BACKUP, "backup killed")                                                                \
    X(KILL_NEWCOMER, "backup killed while it receives its first snapshot")                         \
    X(KILL_HOLDER, "backup with the base killed while another builds")                             \
    X(STOP_NEWCOMER, "backup stopped while it receives its first snapshot")                        \
    X(KILL_OL, "output logger killed")                                                             \
    X(KILL_OL_HELD, "output logger killed while it holds outputs")                                 \
    X(KILL_OL_IN_HAND, "output logger killed with outputs in hand")                                \
    X(KILL_OL_PROMOTING, "output logger killed during a failover")                                 \
    X(KILL_IL, "input logger killed")                                                              \
    X(KILL_IL_BACKLOG, "input logger killed with inputs not acknowledged")                         \
    X(STOP_OL, "output logger stopped and continued")                                              \
    X(STOP_MASTER, "master stopped")                                                               \
    X(STOP_BACKUP, "backup stopped")                                                               \
    X(STALL, "false suspicion of a living master")                                                 \
    X(STALL_ALONE, "silence of a master that nobody could replace")                                \
    X(FENCED_OUT, "fenced master found out and stopped")                                           \
    X(OLD_FRAMES, "frames of an ended view dropped")                                               \
    X(CUT_LINK, "link or control channel cut and restored")                                        \
    X(SWITCHOVER, "planned change of master")                                                      \
    X(SWITCHOVER_GIVEN_UP, "planned change of master given up")                                    \
    X(VIEW_CHANGE, "view change")                                                                  \
    X(VIEW_IN_FLIGHT, "view change with frames in flight")                                         \
    X(CUT_DROPS, "cut drops stored PALs")                                                          \
    X(CUT_DROPS_SECTION, "cut drops a whole section")                                              \
    X(CUT_IN_PACKET, "cut inside a packet")                                                        \
    X(EMPTY_REPLAY, "failover with nothing to replay")                                             \
    X(BASE_ROLLED_BACK, "prepared delta rolled back at a promotion")                               \
    X(BASE_BY_PROMOTION, "prepared delta turns out committed at a promotion")                      \
    X(BASE_FROM_FILE, "new process finds the base in its slot")                                    \
    X(BASE_WAS_PREPARED, "new process finds what was committed as a prepared delta")               \
    X(OTHER_BACKUP, "other backup takes over after a second crash")                                \
    X(HEIR_WANTED, "view without master until a process holds the base")                           \
    X(PREPARED_LATE, "backup prepares what was committed meanwhile")                               \
    X(VOID, "backup is told that what it prepared is void")                                        \
    X(JOINED_PENDING, "backup comes with the base while a snapshot is under way")                  \
    X(BACKUP_SILENT, "silent backup dropped")                                                      \
    X(FORGOTTEN, "base given up: logs full, no backup")                                            \
    X(STANDBY_STAYS, "backup stays through a view change")                                         \
    X(REPLAYED, "PAL replayed")                                                                    \
    X(REPLAY_WAIT_VERSION, "replayed access waits for its version")                                \
    X(REPLAY_WAIT_READERS, "replayed write waits for logged readers")                              \
    X(REPLAY_WAIT_FREE, "free-running access waits for logged ones")                               \
    X(REPLAY_SECTION, "section replayed")                                                          \
    X(REPLAY_DETERMINANT, "determinant replayed")                                                  \
    X(DUPLICATE, "duplicate output compared and dropped")                                          \
    X(REPEATED, "PAL or output came again after a restart")                                        \
    X(REJOINED, "replica rejoined a restarted output logger")                                      \
    X(BASE_SECOND_CRASH, "replay from a base that was replayed before")                            \
    X(VERSION_WRAP, "a version passed the end of a PAL's 38 bits")                                 \
    X(DETERMINANT, "determinant logged")                                                           \
    X(NAT_REPLY, "NAT: reply translated back")                                                     \
    X(NAT_EXPIRED, "NAT: mapping expired")                                                         \
    X(NAT_HAIRPIN, "NAT: packet between inside hosts")                                             \
    X(NAT_FRAGMENT, "NAT: fragment translated like its first")                                     \
    X(NAT_LEARNT, "NAT: packet to a next hop that was learnt")                                     \
    X(FIREWALL_OPEN, "firewall: TCP connection established")                                       \
    X(FIREWALL_HALF_OPEN, "firewall: too many half-open connections")                              \
    X(FIREWALL_EXPIRED, "firewall: connection ended")                                              \
    X(WANOPT_RESTORED, "WAN optimizer: packet restored")                                           \
    X(WANOPT_MISSING, "WAN optimizer: encoded packet that lacks a chunk")                          \
    X(IDS_SPLIT, "ids: pattern found that is split")                                               \
    X(IDS_SCANNER, "ids: source that scans")                                                       \
    X(IDS_FLOOD, "ids: too many half-open connections")                                            \
    X(LIMIT_USER, "ratelimit: user over the limit")                                                \
    X(LIMIT_TOTAL, "ratelimit: all over the limit")                                                \
    X(NAT_EXHAUSTED, "NAT: no port free")                                                          \
    X(DROPPED_BY_NF, "packet without output")

enum coverage {
#define X(name, text) COVER_##name,
    COVERAGE(X)
#undef X
        COVERAGE_COUNT
};

extern uint64_t coverage_count[COVERAGE_COUNT];
extern const char *const coverage_name[COVERAGE_COUNT];

static inline void cover(enum coverage what)
{
    coverage_count[what]++;
}

static inline void cover_if(bool condition, enum coverage what)
{
    coverage_count[what] += condition;
}

#endif
