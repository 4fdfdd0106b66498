/* Random frames, commits and failovers: the release against a naive model that keeps everything. */
#include "core/release.h"

#include <string.h>

#include "tests/core_test.h"

#define W 3u
#define PALS 64u
#define OUTPUTS 32u
#define HELD 8u
#define HISTORY 65536u

struct output {
    uint64_t vector[W];
    uint64_t hash;
};

/* Every number since the start is kept; index 0 is not used. */
struct model_worker {
    uint64_t pal[HISTORY];
    struct output out[HISTORY];
    uint64_t hash[HISTORY]; /* of what was released */
    uint64_t stored, arrived, released, pal_base, out_base;
    uint64_t held_first; /* number of the oldest output that is held; none: arrived + 1 */
};

struct model {
    struct model_worker worker[W];
    uint64_t duplicates, mismatches;
};

struct pair {
    struct release *release;
    void *memory;
    struct model *model;
    uint64_t seed;
};

static void compare(struct pair *p)
{
    for (uint32_t w = 0; w < W; w++) {
        struct release_worker *x = &p->release->worker[w];
        struct model_worker *m = &p->model->worker[w];
        CHECK(x->stored == m->stored && x->arrived == m->arrived && x->released == m->released);
        CHECK(x->pal_base == m->pal_base && x->out_base == m->out_base);
        CHECK(x->held_tail - x->held_head ==
              m->arrived + 1 - u64_min(m->held_first, m->arrived + 1));
        for (uint64_t n = m->pal_base + 1; n <= m->stored; n++)
            CHECK(x->pals[n & x->pal_mask] == m->pal[n]);
    }
    CHECK(p->release->duplicates == p->model->duplicates);
    CHECK(p->release->hash_mismatches == p->model->mismatches);
}

static void pal_frame(struct pair *p, uint32_t w)
{
    struct model_worker *m = &p->model->worker[w];
    uint64_t pals[16], first = m->stored + 1;
    uint32_t count = (uint32_t)seed_below(&p->seed, 16);
    seed_fill(&p->seed, pals, sizeof(pals));
    if (seed_below(&p->seed, 8) == 0)
        first += 1 - seed_below(&p->seed, u64_min(m->stored, 20) + 2);
    /* What is known comes again, sometimes wrong; what is covered is not compared. */
    uint32_t known = first == 0 ? 0 : (uint32_t)u64_min(count, m->stored + 1 - first);
    bool wrong = false;
    for (uint32_t i = 0; i < known && first <= m->stored; i++) {
        if (seed_below(&p->seed, 64))
            pals[i] = m->pal[first + i];
        wrong |= first + i > m->pal_base && pals[i] != m->pal[first + i];
    }
    enum release_verdict expected = RELEASE_OK;
    if (first == 0 || first > m->stored + 1)
        expected = RELEASE_BAD;
    else if (first <= m->stored && (wrong || known == count))
        expected = wrong ? RELEASE_DIVERGED : RELEASE_DUPLICATE;
    else if (m->stored + count - known - m->pal_base > PALS)
        expected = RELEASE_BAD;
    CHECK(release_pals(p->release, w, first, pals, count) == expected);
    for (uint32_t i = known; i < count && expected == RELEASE_OK; i++)
        m->pal[++m->stored] = pals[i];
}

/* Frames are numbers here: the address of the model's entry. */
static void output_frame(struct pair *p, uint32_t w)
{
    struct model_worker *m = &p->model->worker[w];
    uint64_t number = m->arrived + 1;
    if (seed_below(&p->seed, 16) == 0)
        number += 1 - seed_below(&p->seed, u64_min(number, 20) + 1);
    struct output out;
    out.hash = number <= m->released ? m->hash[number] : seed_next(&p->seed);
    bool changed = number <= m->released && seed_below(&p->seed, 8) == 0;
    bool wrong = changed && number > m->out_base; /* covered ones are not compared */
    out.hash += changed;
    for (uint32_t j = 0; j < W; j++)
        out.vector[j] = p->model->worker[j].stored + seed_below(&p->seed, 6) -
                        u64_min(3, p->model->worker[j].stored);
    enum release_verdict expected = RELEASE_OK;
    uint64_t held = m->arrived + 1 - u64_min(m->held_first, m->arrived + 1);
    if (number == 0 || number > m->arrived + 1 || (number <= m->arrived && number > m->released))
        expected = RELEASE_BAD;
    else if (number <= m->released)
        expected = wrong ? RELEASE_DIVERGED : RELEASE_DUPLICATE;
    else if (held == HELD || m->arrived - m->out_base == OUTPUTS)
        expected = RELEASE_BAD;
    struct output *kept = &m->out[number];
    if (expected == RELEASE_OK)
        *kept = out;
    else
        kept = &out;
    CHECK(release_output(p->release, w, number, kept->vector, kept, out.hash, number) == expected);
    if (expected == RELEASE_BAD)
        return;
    p->model->mismatches += expected == RELEASE_DIVERGED;
    if (number <= m->arrived)
        return; /* came again: nothing new */
    m->arrived = number;
    if (expected == RELEASE_OK)
        return;
    m->held_first = number + 1;
    p->model->duplicates++;
}

static void let_go(struct pair *p, uint32_t w)
{
    struct model_worker *m = &p->model->worker[w];
    struct output *next = m->held_first <= m->arrived ? &m->out[m->held_first] : NULL;
    for (uint32_t j = 0; next && j < W; j++) {
        if (p->model->worker[j].stored < next->vector[j])
            next = NULL;
    }
    CHECK(release_next(p->release, w) == next);
    if (!next)
        return;
    m->hash[m->held_first] = next->hash;
    m->released = m->held_first++;
}

static void commit(struct pair *p)
{
    uint64_t pals[W], outputs[W];
    bool covered = true;
    for (uint32_t w = 0; w < W; w++) {
        struct model_worker *m = &p->model->worker[w];
        pals[w] = m->pal_base + seed_below(&p->seed, m->stored - m->pal_base + 1);
        outputs[w] =
            m->out_base + seed_below(&p->seed, u64_max(m->released, m->arrived) - m->out_base + 1);
        pals[w] += seed_below(&p->seed, 12) == 0;
        covered &= pals[w] <= m->stored && outputs[w] <= m->arrived && outputs[w] <= m->released;
    }
    CHECK(release_covers(p->release, pals, outputs) == covered);
    if (!covered)
        return;
    release_commit(p->release, pals, outputs);
    for (uint32_t w = 0; w < W; w++) {
        p->model->worker[w].pal_base = pals[w];
        p->model->worker[w].out_base = outputs[w];
    }
}

static void discard(void *self, void *frame)
{
    (void)frame;
    ++*(uint64_t *)self;
}

/* The join is recomputed from all that was ever released. */
static uint64_t joined(const struct model *model, uint32_t j)
{
    uint64_t most = 0;
    for (uint32_t w = 0; w < W; w++) {
        for (uint64_t n = 1; n <= model->worker[w].released; n++)
            most = u64_max(most, model->worker[w].out[n].vector[j]);
    }
    return most;
}

static void fail_over(struct pair *p)
{
    uint64_t count = 0, held = 0, cut[W];
    bool good = true;
    for (uint32_t w = 0; w < W; w++) {
        struct model_worker *m = &p->model->worker[w];
        held += m->arrived + 1 - u64_min(m->held_first, m->arrived + 1);
        uint64_t join = joined(p->model, w);
        CHECK(join == p->release->joined[w]);
        cut[w] = m->stored - seed_below(&p->seed, m->stored - u64_max(m->pal_base, join) + 1);
        if (seed_below(&p->seed, 16) == 0)
            cut[w] += seed_below(&p->seed, 2) ? 1 : (uint64_t)-1;
        good &= cut[w] <= m->stored && cut[w] >= m->pal_base && cut[w] >= join;
    }
    release_fence(p->release, discard, &count);
    CHECK(count == held);
    for (uint32_t w = 0; w < W; w++)
        p->model->worker[w].held_first = p->model->worker[w].arrived + 1;
    CHECK(release_truncate(p->release, cut) == good);
    for (uint32_t w = 0; w < W; w++) {
        struct model_worker *m = &p->model->worker[w];
        if (!good) /* the OL would stop here; go on with a cut that cannot be wrong */
            cut[w] = m->stored;
    }
    CHECK(good || release_truncate(p->release, cut));
    for (uint32_t w = 0; w < W; w++) {
        struct model_worker *m = &p->model->worker[w];
        m->stored = cut[w];
        m->arrived = m->out_base;
        m->held_first = m->arrived + 1;
    }
}

int main(int argc, char **argv)
{
    struct pair p = {.seed = seed_begin(argc, argv)};
    uint64_t until = 0;
    p.release = aligned_alloc(CACHE_LINE, sizeof(*p.release));
    p.memory = malloc(release_bytes(W, PALS, OUTPUTS, HELD));
    p.model = malloc(sizeof(*p.model));
    while (time_left(&until, 1.0)) {
        release_init(p.release, W, p.memory, PALS, OUTPUTS, HELD);
        p.release->exact = true;
        memset(p.model, 0, sizeof(*p.model));
        for (uint32_t w = 0; w < W; w++)
            p.model->worker[w].held_first = 1;
        for (unsigned i = 0; i < 2000; i++) {
            uint64_t r = seed_below(&p.seed, 100);
            uint32_t w = (uint32_t)seed_below(&p.seed, W);
            if (r < 30)
                pal_frame(&p, w);
            else if (r < 60)
                output_frame(&p, w);
            else if (r < 93)
                let_go(&p, w);
            else if (r < 99)
                commit(&p);
            else
                fail_over(&p);
            compare(&p);
        }
    }
    free(p.memory);
    free(p.model);
    free(p.release);
    return 0;
}
