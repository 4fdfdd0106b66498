/* Hooks of the simulator (native/sim): empty, unless compiled with -DFTMB_SIM.
 *
 * SIM_POINT() stands where another worker may do something in between: before and after every
 * shared load and store that matters. The other hooks tell the simulator's oracle what really
 * happened, at the instant that it did. */
#ifndef FTMB_CORE_SIM_POINT_H
#define FTMB_CORE_SIM_POINT_H

#ifdef FTMB_SIM

#include <stdint.h>

struct ftmb_ctx;
void sim_point(void);
/* A variable was taken for writing, a read turned out valid, a section is about to end. */
void sim_wrote(struct ftmb_ctx *ctx, uint32_t id);
void sim_read(struct ftmb_ctx *ctx, uint32_t id);
void sim_section_ends(struct ftmb_ctx *ctx);
/* A PAL was appended, or taken from the log; it is number ctx->cursor->pals. */
void sim_pal(struct ftmb_ctx *ctx, uint64_t pal);
/* The number of the next epoch has been stored. */
struct epoch_group;
void sim_flipped(struct epoch_group *group);

/* What happens inside of core only, counted to know that schedules come there. */
enum sim_seen {
    SIM_SEEN_BUSY, /* a worker waits while another saves a line */
    SIM_SEEN_RACE, /* a worker claimed a line while it was read for a snapshot */
    SIM_SEEN_WOKE, /* an idle worker woke up while its cursor was read */
    SIM_SEEN_GATE, /* a worker waits at an epoch's gate */
};
void sim_seen(enum sim_seen what);

#define SIM_POINT() sim_point()
#define SIM_SEEN(what) sim_seen(what)
#define SIM_WROTE(ctx, id) sim_wrote(ctx, id)
#define SIM_READ(ctx, id) sim_read(ctx, id)
#define SIM_SECTION_ENDS(ctx) sim_section_ends(ctx)
#define SIM_PAL(ctx, pal) sim_pal(ctx, pal)
#define SIM_FLIPPED(group) sim_flipped(group)

#else

#define SIM_POINT() ((void)0)
#define SIM_SEEN(what) ((void)0)
#define SIM_WROTE(ctx, id) ((void)0)
#define SIM_READ(ctx, id) ((void)0)
#define SIM_SECTION_ENDS(ctx) ((void)0)
#define SIM_PAL(ctx, pal) ((void)0)
#define SIM_FLIPPED(group) ((void)0)

#endif

#endif
