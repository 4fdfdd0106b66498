/* A standby and whatever a master or an earlier process may leave it: deltas of any bytes, commits
 * and roll-backs in any order, memory of any content. What is refused must leave no trace. */
#include "core/standby.h"
#include "fuzz/seal.h"

#define WORKERS 2u
#define VARIABLES 4u
#define DIGEST 0x1234u
#define STEPS 12u

struct world {
    struct standby standby;
    struct arena *working;
    uint8_t *memory;
    uint64_t memory_bytes;
};

static void *zeroed(uint64_t bytes)
{
    void *memory = aligned_alloc(4096, align_up(bytes, 4096));
    HOLDS(memory);
    memset(memory, 0, bytes);
    return memory;
}

static void open_world(struct world *world)
{
    uint64_t size = arena_bytes(256, 256, WORKERS, VARIABLES);
    world->working = arena_create(zeroed(size), size, 256, 256, WORKERS, VARIABLES, DIGEST);
    HOLDS(world->working);
    world->memory_bytes = standby_bytes(size);
    world->memory = zeroed(world->memory_bytes);
    standby_create(&world->standby, world->working, world->memory);
}

static void close_world(struct world *world)
{
    free(world->working);
    free(world->memory);
}

static bool as_base(const struct standby *standby)
{
    return snapshot_first_difference(standby->image, standby->working) == UINT64_MAX;
}

/* Most deltas are of use: they build on the base that is there, or begin a build, or go on with it.
 */
static void aim(const struct standby *standby, struct delta_head *head, uint8_t how)
{
    const struct standby_build *build = &standby->build;
    struct base_name base = standby_base(standby);
    uint64_t all = snapshot_lines(standby->head->arena_size);
    bool building = build->epoch != 0;
    head->view = building ? build->view : base.view;
    head->epoch = building ? build->epoch + 1 : base.epoch + 1;
    head->previous_epoch = build->epoch;
    head->base_view = base.view;
    head->base_epoch = how & 2 ? base.epoch : 0;
    head->hashes = how & 4 ? 0 : head->hashes;
    head->slice.first = building ? (build->first + build->lines) % all : head->slice.first % all;
    head->slice.lines %= all - head->slice.first + 1;
    if (how & 32)
        head->slice.lines = 0;
    else if (how & 64)
        head->slice.lines = all - head->slice.first;
}

/* What can be committed, or taken over by another process, is a sound delta. */
static void check_prepared(const struct world *world)
{
    const struct standby *standby = &world->standby;
    if (!standby_prepared(standby).epoch)
        return;
    HOLDS(standby->build.epoch == 0);
    HOLDS(!delta_check(standby->delta, atomic_load(&standby->head->prepared),
                       standby->head->arena_size, DIGEST));
    HOLDS(arena_valid(world->working, standby->head->arena_size));
    HOLDS(delta_compare(standby->delta, world->working) == UINT64_MAX);
}

static void receive(struct world *world, struct input *input)
{
    struct standby *standby = &world->standby;
    uint8_t how = input_u8(input);
    size_t length = sizeof(struct delta_head) + input_u16(input) % 1024;
    uint8_t *delta = input_block(input, &length);
    if (standby_prepared(standby).epoch || how & 128) {
        standby_roll_back(standby);
        HOLDS(as_base(standby) && standby->build.epoch == 0);
    }
    struct base_name base = standby_base(standby);
    if (how & 1 && length >= sizeof(struct delta_head))
        aim(standby, (struct delta_head *)delta, how);
    if (how & 24)
        seal(delta, length, DIGEST);
    memcpy(standby->delta, delta, length);
    free(delta);
    if (standby_prepare(standby, length)) {
        HOLDS(as_base(standby) && standby_prepared(standby).epoch == 0);
        HOLDS(standby->build.epoch == 0);
    }
    HOLDS(base_same(base, standby_base(standby)));
    check_prepared(world);
}

static void commit(struct world *world, struct input *input)
{
    struct base_name name = standby_prepared(&world->standby);
    if (input_u8(input) & 1)
        name.epoch += input_u8(input);
    bool known = base_same(name, standby_prepared(&world->standby)) ||
                 base_same(name, standby_base(&world->standby));
    bool done = standby_commit(&world->standby, name);
    HOLDS(done == (known && name.epoch != 0));
    if (done)
        HOLDS(base_same(standby_base(&world->standby), name));
    if (standby_prepared(&world->standby).epoch == 0 && world->standby.build.epoch == 0)
        HOLDS(as_base(&world->standby));
}

/* The process dies, and what it leaves has some bytes changed. */
static void restart(struct world *world, struct input *input)
{
    struct world next;
    open_world(&next);
    for (unsigned n = input_u8(input) % 4; n > 0; n--) {
        uint64_t at = input_u16(input);
        world->memory[at % world->memory_bytes] = input_u8(input);
    }
    standby_adopt(&next.standby, world->memory, world->memory_bytes);
    if (standby_prepared(&next.standby).epoch == 0)
        HOLDS(as_base(&next.standby));
    check_prepared(&next);
    close_world(world);
    *world = next;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    struct input input = {bytes, size};
    struct world world;
    open_world(&world);
    for (unsigned n = 0; input.left && n < STEPS; n++) {
        switch (input_u8(&input) % 4) {
        case 0:
            commit(&world, &input);
            break;
        case 1:
            standby_roll_back(&world.standby);
            HOLDS(as_base(&world.standby));
            break;
        case 2:
            restart(&world, &input);
            break;
        default:
            receive(&world, &input);
        }
    }
    close_world(&world);
    return 0;
}
