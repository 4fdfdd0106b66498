/* The deterministic simulator: one schedule of the whole system, from one seed.
 *
 * The code of core/ and nf/ is the data plane's own, compiled with hooks (core/sim_point.h). What
 * is simulated is what surrounds it: processes and their threads (coroutines), links, the control
 * channels, time, and the fleet that starts processes anew. One schedule runs at a time, so all of
 * it lives in one struct, which is reused. */
#ifndef FTMB_SIM_SIM_H
#define FTMB_SIM_SIM_H

#include "core/epoch.h"
#include "core/handover.h"
#include "core/input_log.h"
#include "core/release.h"
#include "core/replay.h"
#include "core/standby.h"
#include "core/stream.h"
#include "core/view.h"
#include "core/wire.h"
#include "nf/nf.h"
#include "sim/config.h"
#include "sim/coro.h"
#include "sim/coverage.h"
#include "sim/lane.h"
#include "sim/message.h"

#define SIM_WORKERS FTMB_MAX_WORKERS
#define SIM_SLOTS 3u
#define SIM_VARIABLES 64u
#define SIM_INPUTS 8192u  /* of one worker, in one schedule */
#define SIM_OUTPUTS 1024u /* likewise */
#define SIM_PALS 32768u   /* likewise */
#define SIM_WINDOW 1024u
#define SIM_ARENA_BYTES (192u * 1024)
#define SIM_LINES (SIM_ARENA_BYTES / ARENA_LINE)
#define SIM_US 1000ull
#define SIM_MS 1000000ull

/* ---- a replica ---------------------------------------------------------------------------- */

struct proc;

struct worker {
    struct ftmb_ctx ctx;
    struct proc *proc;
    struct coro coro;
    uint64_t pals[FTMB_BURST * 64];
    struct stream_rx in;
    struct stream_tx out;
    struct frame *kept[SIM_WINDOW];
    uint64_t progress_sent;
    struct frame *outputs[FTMB_BURST];
    uint32_t output_count;
    uint64_t ghost[SIM_WORKERS]; /* what this worker truly depends on */
    uint64_t early[SIM_WORKERS]; /* (planted) counts as before the packet */
    bool in_packet;              /* between its beginning and its end */
};

/* What the master knows of the replica in another slot. */
struct backup {
    bool present;
    uint32_t incarnation;
    bool holds;     /* the committed snapshot, which deltas build on */
    bool sent;      /* it gets the delta under way */
    bool delivered; /* and has got it */
    bool prepared;  /* and has all of it, so that it may be committed */
    bool refused;   /* or does not want it */
    uint64_t built; /* epoch of the delta that its build went on with; 0: there is none */
    uint64_t posted_ns;
};

/* What the master knows of its snapshots. */
struct snapshots {
    struct base_name committed;  /* that deltas build on; epoch 0: none */
    struct base_name pending;    /* epoch 0: none under way */
    struct base_name told;       /* the base, as the OL last said */
    struct snapshot_slice slice; /* of the one under way */
    uint64_t slice_at;           /* where the next slice begins */
    uint64_t previous;           /* epoch of the delta before, in this view */
    bool making;                 /* its delta is not whole yet */
    uint32_t lost;               /* in a row */
    bool is_committed;
    uint64_t committed_ns;
    uint64_t due_ns;
    bool wanted; /* a snapshot was asked for */
};

struct proc {
    bool alive;
    bool stopped;           /* SIGSTOP: keeps everything, does nothing */
    uint64_t mute_until_ns; /* its heart-beats are late, nothing else (a false suspicion) */
    uint32_t uid;           /* never used again */
    uint32_t slot;
    uint32_t incarnation; /* 0: not welcomed yet */
    uint32_t watched;     /* incarnation that the OL's death watch has for it, 0: none */
    uint32_t view;
    bool active;
    uint32_t promised_view; /* has answered its promotion into that view */
    struct message cut;     /* with this */
    uint32_t link;          /* generation of the OL's sockets that it is connected to */

    struct arena *arena;
    struct arena *header;   /* at the cut under way */
    struct arena *image[2]; /* engines that compare */
    int committed_image, pending_image;
    uint8_t again[SIM_LINES]; /* engine `page`: lines of deltas that were never committed */
    struct marks marks;       /* engine `cow` */
    uint8_t *marks_memory;
    struct epoch_group epochs;
    struct snapshot_name flipping; /* the snapshot whose cut is being made */
    struct delta delta;
    struct snapshots snapshots;
    struct backup backup[SIM_SLOTS];
    struct standby standby;
    struct base_name received; /* the last delta, so that a repeated one is known */

    _Atomic uint32_t replaying;
    struct replay replay;
    uint64_t *replay_pals;
    struct published_count published[SIM_WORKERS];
    uint64_t vectors[SIM_VARIABLES * SIM_WORKERS];
    struct ctx_env env;
    struct worker worker[SIM_WORKERS];
    struct coro control, state;

    /* The oracle's: what truly happened here, by number since the beginning. */
    uint64_t ghost[SIM_VARIABLES][SIM_WORKERS];
    uint64_t true_pals[SIM_WORKERS][SIM_PALS];
    uint64_t true_outputs[SIM_WORKERS][SIM_OUTPUTS];
    struct program_ghost *program;
};

/* Memory of a slot that outlives its processes (the base's file). */
struct slot_file {
    uint8_t *memory;
    uint8_t *spare; /* for the next process's */
    bool used;
};

/* ---- the loggers -------------------------------------------------------------------------- */

struct il {
    bool alive;
    bool stopped;
    uint32_t link;
    struct coro coro;
    /* Mapped: survives the process. */
    struct input_log log[SIM_WORKERS];
    uint8_t *memory;
    uint64_t latest_ns[SIM_WORKERS];
    uint32_t view, slot, incarnation;
    bool accepting;
    /* Dies with it. */
    struct stream_tx out[SIM_WORKERS];
    uint64_t limit[SIM_WORKERS];
    uint64_t ticked_ns;
    uint64_t pressed_ns;
};

struct ol_member {
    bool connected;
    uint64_t heard_ns;
};

struct ol {
    bool alive;
    bool stopped;
    struct coro coro;
    /* Mapped. */
    struct release release;
    uint8_t *memory;
    struct view_state state;
    struct snapshot_cut cut; /* of the base */
    bool forgotten;          /* the base was given up */
    uint32_t pid[SIM_SLOTS]; /* of the members */
    bool flowing;
    uint32_t slot, view, incarnation; /* that frames are taken from */
    uint64_t start[SIM_WORKERS];      /* next_input with which that view began */
    uint64_t progress[SIM_WORKERS];   /* next_input that the master told */
    bool holding;                     /* (planted) */
    /* Dies with it. */
    struct stream_rx in[SIM_WORKERS];
    uint64_t limit[SIM_WORKERS]; /* credit as last sent */
    struct ol_member member[SIM_SLOTS];
    bool il_connected;
    struct frame *leaving[FTMB_BURST];
    uint32_t leaving_count;
    uint64_t asked_ns, forgot_ns;
    bool il_pressed;
    bool handover_wanted;
    struct handover handover;
    uint32_t polls;
};

/* ---- the schedule ------------------------------------------------------------------------- */

struct packet_in {
    uint32_t length;
    uint8_t port;
    uint8_t bytes[128];
};

struct program; /* sim/program.h */

struct sim {
    struct sim_config config;
    const struct program *program;
    uint64_t params[NF_MAX_VALUES];
    struct nf_needs needs;
    struct rng schedule, links, traffic, faults, values;
    uint64_t now_ns;
    uint64_t steps;
    uint32_t uids;
    uint32_t run; /* number of the schedule in this process */
    uint64_t switches;
    uint32_t until_switch;          /* SIM_POINTs before the next switch */
    bool waits_for_line;            /* a worker, while another saves it */
    uint64_t progress_ns;           /* when something last went forward */
    bool worked;                    /* the actor resumed last did something */
    struct base_name promoted_base; /* of the latest promotion */
    uint32_t world_link;            /* generation of the OL's sockets */
    bool violated;
    bool tracing;
    bool lost; /* a named, loud end: state lost after the base was given up */
    char violation[256];
    char invariant[8];
    uint64_t trace_hash;

    struct proc proc[SIM_SLOTS];
    struct slot_file file[SIM_SLOTS];
    struct il il;
    struct ol ol;
    struct lane il_to[SIM_SLOTS][SIM_WORKERS], il_from[SIM_SLOTS][SIM_WORKERS];
    struct lane ol_to[SIM_SLOTS][SIM_WORKERS], ol_from[SIM_SLOTS][SIM_WORKERS];
    struct channel from_proc[SIM_SLOTS], to_proc[SIM_SLOTS], from_il, to_il;
    struct channel deaths; /* what the death watch says to the OL */
    struct parcel state[SIM_SLOTS][SIM_SLOTS];
    uint64_t promote_pals[SIM_WORKERS][SIM_PALS];

    struct world *world;
    struct oracle *oracle;
};

extern struct sim sim;

/* run.c */
#define TRACE(...)                                                                                 \
    do {                                                                                           \
        if (unlikely(sim.tracing))                                                                 \
            sim_trace(__VA_ARGS__);                                                                \
    } while (0)
void sim_trace(const char *format, ...) __attribute__((format(printf, 1, 2)));
_Noreturn void sim_fail(const char *invariant, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* Something went forward: there is no deadlock yet. */
void sim_progress(void);
/* In a wait loop or an idle poll. */
void sim_wait(void);
/* Mix something that happened into the trace. */
void sim_note(uint64_t what);

/* proc.c, worker.c, snapshot.c, master.c, il.c, ol.c */
void proc_start(uint32_t slot);
void proc_kill(struct proc *proc);
void proc_exit(struct proc *proc);
void proc_send(struct proc *proc, const struct message *message);
void worker_begin(struct worker *worker, struct replay *replay);
void worker_main(void *self);
void worker_drop_frames(struct worker *worker);
void snapshot_main(void *self);
void snapshot_committed(struct proc *proc, struct base_name name);
void snapshot_tell(struct proc *proc);
void master_begin(struct proc *proc, struct base_name base);
void master_turn(struct proc *proc);
void master_backup(struct proc *proc, const struct message *message);
void il_start(bool first);
void il_kill(void);
bool il_offer(const struct packet_in *packet);
void ol_start(bool first);
void ol_kill(void);

/* Stream frames that so many inputs may need. */
static inline uint32_t sim_room(uint32_t inputs)
{
    return inputs * (sim.needs.max_pals + sim.needs.max_outputs) + 1;
}

/* ol_control.c */
void ol_control(void);

#endif
