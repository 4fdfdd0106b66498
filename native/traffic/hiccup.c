/* Hiccup meter. */
#include "traffic/hiccup.h"

#include "traffic/histogram.h"
#include "traffic/why.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>

#define PERIOD_NS 1000000u
#define OVER_NS 1000000u
#define SECOND_NS 1000000000u
/* Above ordinary threads, below what an administrator may have set on purpose. */
#define FIFO_PRIORITY 10

struct meter {
    struct hiccup *owner;
    pthread_t thread;
    unsigned cpu;
    bool running;
    uint64_t over;
    struct histogram late;
};

struct hiccup {
    _Atomic bool recording;
    _Atomic bool ending;
    bool fifo;
    unsigned count;
    struct meter meters[];
};

static uint64_t ns_of(const struct timespec *t)
{
    return (uint64_t)t->tv_sec * SECOND_NS + (uint64_t)t->tv_nsec;
}

static void *meter_main(void *arg)
{
    struct meter *m = arg;
    struct hiccup *h = m->owner;
    struct timespec at, now;
    /* Ordinary threads may be woken 50 us late on purpose, to save power. */
    prctl(PR_SET_TIMERSLACK, 1ul, 0ul, 0ul, 0ul);
    clock_gettime(CLOCK_MONOTONIC, &at);
    while (!atomic_load_explicit(&h->ending, memory_order_relaxed)) {
        at.tv_nsec += PERIOD_NS;
        if (at.tv_nsec >= (long)SECOND_NS) {
            at.tv_nsec -= SECOND_NS;
            at.tv_sec++;
        }
        while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL) == EINTR)
            ;
        clock_gettime(CLOCK_MONOTONIC, &now);
        if (!atomic_load_explicit(&h->recording, memory_order_relaxed))
            continue;
        uint64_t late = ns_of(&now) - ns_of(&at);
        histogram_add(&m->late, late);
        m->over += late > OVER_NS;
    }
    return NULL;
}

/* Start one meter; fills `fifo` with whether it got real-time priority. 0 or an errno. */
static int start_meter(struct meter *m, bool *fifo)
{
    pthread_attr_t attr;
    struct sched_param priority = {.sched_priority = FIFO_PRIORITY};
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(m->cpu, &set);
    pthread_attr_init(&attr);
    int rc = pthread_attr_setaffinity_np(&attr, sizeof(set), &set);
    if (rc == 0) {
        pthread_attr_setinheritsched(&attr, PTHREAD_EXPLICIT_SCHED);
        pthread_attr_setschedpolicy(&attr, SCHED_FIFO);
        pthread_attr_setschedparam(&attr, &priority);
        rc = pthread_create(&m->thread, &attr, meter_main, m);
        *fifo = rc == 0;
    }
    if (rc == EPERM) {
        priority.sched_priority = 0;
        pthread_attr_setschedpolicy(&attr, SCHED_OTHER);
        pthread_attr_setschedparam(&attr, &priority);
        rc = pthread_create(&m->thread, &attr, meter_main, m);
    }
    pthread_attr_destroy(&attr);
    m->running = rc == 0;
    if (m->running)
        pthread_setname_np(m->thread, "hiccup");
    return rc;
}

struct hiccup *hiccup_start(const unsigned *cpus, unsigned count, char *why)
{
    struct hiccup *h = calloc(1, sizeof(*h) + count * sizeof(h->meters[0]));
    if (!h) {
        traffic_say(why, "no memory for the hiccup meter");
        return NULL;
    }
    h->count = count;
    h->fifo = count > 0;
    for (unsigned i = 0; i < count; i++) {
        struct meter *m = &h->meters[i];
        m->owner = h;
        m->cpu = cpus[i];
        histogram_init(&m->late);
        bool fifo = false;
        int rc = m->cpu < CPU_SETSIZE ? start_meter(m, &fifo) : EINVAL;
        h->fifo = h->fifo && fifo;
        if (rc) {
            traffic_say(why, "hiccup meter: no thread on cpu %u: %s", m->cpu, strerror(rc));
            hiccup_stop(h);
            hiccup_free(h);
            return NULL;
        }
    }
    return h;
}

void hiccup_record(struct hiccup *h, bool on)
{
    atomic_store_explicit(&h->recording, on, memory_order_relaxed);
}

void hiccup_stop(struct hiccup *h)
{
    atomic_store(&h->ending, true);
    for (unsigned i = 0; i < h->count; i++) {
        if (h->meters[i].running)
            pthread_join(h->meters[i].thread, NULL);
        h->meters[i].running = false;
    }
}

void hiccup_free(struct hiccup *h)
{
    free(h);
}

bool hiccup_fifo(const struct hiccup *h)
{
    return h->fifo;
}

json_t *hiccup_json(const struct hiccup *h)
{
    json_t *all = json_object();
    for (unsigned i = 0; i < h->count; i++) {
        const struct meter *m = &h->meters[i];
        char cpu[16];
        snprintf(cpu, sizeof(cpu), "%u", m->cpu);
        json_t *one = json_pack("{s:I,s:I,s:I,s:I,s:I,s:I}", "count", (json_int_t)m->late.count,
                                "p50", (json_int_t)histogram_quantile(&m->late, 0.5), "p99",
                                (json_int_t)histogram_quantile(&m->late, 0.99), "p999",
                                (json_int_t)histogram_quantile(&m->late, 0.999), "max",
                                (json_int_t)m->late.max, "over_1ms", (json_int_t)m->over);
        json_object_set_new(all, cpu, one);
    }
    return all;
}

json_t *hiccup_dump(const struct hiccup *h)
{
    json_t *cpus = json_object();
    for (unsigned i = 0; i < h->count; i++) {
        char cpu[16];
        snprintf(cpu, sizeof(cpu), "%u", h->meters[i].cpu);
        json_object_set_new(cpus, cpu, histogram_json(&h->meters[i].late));
    }
    return json_pack("{s:i,s:s,s:o}", "version", 1, "unit", "ns", "cpus", cpus);
}
