/* The monitor (see monitor.h). Each thread has the flows that it meets in a table of its own, which
 * needs no lock, since the same flow always meets the same thread. What threads share is locked:
 * the totals, the sample, and the table of services, which new flows look up and seldom change. */
#include "plain/monitor.h"

#include <arpa/inet.h>
#include <netinet/ip.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define ETHERNET_BYTES 14
#define IP_TYPE 0x0800

struct flow {
    uint32_t source;
    uint32_t destination;
    uint32_t ports;
    uint16_t kind; /* protocol or frame type, never 0: the entry is in use */
    uint64_t packets;
    uint64_t bytes;
    uint64_t seen_ms;
};

struct thread_state {
    struct flow *table;
    uint64_t packets;
    uint64_t bytes;
    uint64_t flows;
    uint64_t untracked;
};

struct service {
    uint16_t port; /* 0: not named yet, all others */
    atomic_ulong flows;
};

struct sample {
    struct timespec taken;
    uint64_t number; /* of the packet, among all */
    uint32_t length;
    uint8_t head[MONITOR_SAMPLE_BYTES];
};

static struct monitor_config config = {.threads = 1, .flows = 16384, .sample_every = 1000};
static unsigned table_bits;
static struct thread_state threads[MONITOR_MAX_THREADS];

static pthread_mutex_t totals_lock = PTHREAD_MUTEX_INITIALIZER;
static uint64_t total_packets, total_bytes;

static pthread_rwlock_t services_lock = PTHREAD_RWLOCK_INITIALIZER;
static struct service services[MONITOR_SERVICES] = {{.port = 80}, {.port = 443}, {.port = 53}};
static unsigned named = 3;
static struct service others;

static pthread_mutex_t samples_lock;
static struct sample *samples;
static uint64_t samples_taken;

int monitor_open(const struct monitor_config *wanted)
{
    config = *wanted;
    for (table_bits = 2; (3ull << table_bits) < 4ull * config.flows; table_bits++)
        ;
    pthread_mutex_init(&samples_lock, NULL);
    samples = malloc(MONITOR_SAMPLES * sizeof(*samples));
    if (!samples)
        return -1;
    for (unsigned i = 0; i < config.threads; i++) {
        threads[i].table = calloc((size_t)1 << table_bits, sizeof(struct flow));
        if (!threads[i].table)
            return -1;
    }
    return 0;
}

static uint64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static struct flow flow_of(const uint8_t *frame, size_t length)
{
    struct flow flow = {.kind = 1};
    if (length < ETHERNET_BYTES)
        return flow;
    flow.kind = (uint16_t)(frame[12] << 8 | frame[13]) | 1;
    struct iphdr ip;
    uint32_t ports = 0; /* a flow whose address is passed to memcpy() stays in no register */
    size_t room = length - ETHERNET_BYTES;
    if (flow.kind != (IP_TYPE | 1) || room < sizeof(ip))
        return flow;
    memcpy(&ip, frame + ETHERNET_BYTES, sizeof(ip));
    if (ip.version != 4)
        return flow;
    flow.kind = (uint16_t)(ip.protocol << 1 | 1);
    flow.source = ip.saddr;
    flow.destination = ip.daddr;
    size_t header = ip.ihl * 4u;
    int has_ports = ip.protocol == IPPROTO_TCP || ip.protocol == IPPROTO_UDP;
    if (has_ports && !(ip.frag_off & htons(0x1fff)) && header >= 20 && room >= header + 4)
        memcpy(&ports, frame + ETHERNET_BYTES + header, sizeof(ports));
    flow.ports = ports;
    return flow;
}

static uint64_t hash_of(const struct flow *flow)
{
    uint64_t h = ((uint64_t)flow->source << 32 | flow->destination) * 0x9e3779b97f4a7c15ull;
    h ^= ((uint64_t)flow->ports << 16 | flow->kind) * 0xd6e8feb86659fd93ull;
    h ^= h >> 32;
    return h * 0xd6e8feb86659fd93ull;
}

/* The service of a port; the first flows of unknown ones give the places that are left a name. */
static void count_service(uint16_t port)
{
    struct service *service = &others;
    pthread_rwlock_rdlock(&services_lock);
    for (unsigned i = 0; i < named && service == &others; i++) {
        if (services[i].port == port)
            service = &services[i];
    }
    int room = named < MONITOR_SERVICES;
    pthread_rwlock_unlock(&services_lock);
    if (service == &others && port != 0 && room) {
        pthread_rwlock_wrlock(&services_lock);
        for (unsigned i = 0; i < named && service == &others; i++) {
            if (services[i].port == port)
                service = &services[i];
        }
        if (service == &others && named < MONITOR_SERVICES) {
            service = &services[named++];
            service->port = port;
        }
        pthread_rwlock_unlock(&services_lock);
    }
    atomic_fetch_add(&service->flows, 1);
}

static int same(const struct flow *a, const struct flow *b)
{
    return a->source == b->source && a->destination == b->destination && a->ports == b->ports &&
           a->kind == b->kind;
}

static void count_flow(struct thread_state *thread, const struct flow *key, size_t length)
{
    uint64_t mask = (1ull << table_bits) - 1;
    uint64_t at = hash_of(key) >> (64 - table_bits);
    while (thread->table[at].kind && !same(&thread->table[at], key))
        at = (at + 1) & mask;
    struct flow *flow = &thread->table[at];
    if (!flow->kind) {
        if (thread->flows == config.flows) {
            thread->untracked++;
            return;
        }
        *flow = *key;
        thread->flows++;
        count_service(ntohs((uint16_t)(key->ports >> 16)));
    }
    flow->packets++;
    flow->bytes += length;
    flow->seen_ms = now_ms();
}

/* The number is taken under both locks, so that samples are in the order of their numbers. */
static void take_sample(const void *frame, size_t length)
{
    pthread_mutex_lock(&samples_lock);
    struct sample *sample = &samples[samples_taken++ % MONITOR_SAMPLES];
    pthread_mutex_lock(&totals_lock);
    sample->number = total_packets;
    pthread_mutex_unlock(&totals_lock);
    clock_gettime(CLOCK_REALTIME, &sample->taken);
    sample->length = (uint32_t)length;
    memset(sample->head, 0, sizeof(sample->head));
    memcpy(sample->head, frame, length < sizeof(sample->head) ? length : sizeof(sample->head));
    pthread_mutex_unlock(&samples_lock);
}

unsigned monitor_frame(unsigned number, unsigned port, const void *frame, size_t length)
{
    struct thread_state *thread = &threads[number];
    struct flow key = flow_of(frame, length);
    thread->packets++;
    thread->bytes += length;
    count_flow(thread, &key, length);

    pthread_mutex_lock(&totals_lock);
    total_packets++;
    total_bytes += length;
    pthread_mutex_unlock(&totals_lock);

    if (config.sample_every && (unsigned long)random() % config.sample_every == 0)
        take_sample(frame, length);
    return 1 - port;
}

void monitor_read(struct monitor_totals *totals)
{
    memset(totals, 0, sizeof(*totals));
    totals->packets = total_packets;
    totals->bytes = total_bytes;
    totals->samples = samples_taken;
    for (unsigned i = 0; i < named; i++)
        totals->by_service += atomic_load(&services[i].flows);
    totals->by_service += atomic_load(&others.flows);
    for (unsigned t = 0; t < config.threads; t++) {
        const struct thread_state *thread = &threads[t];
        totals->by_thread += thread->packets;
        totals->bytes_thread += thread->bytes;
        totals->flows += thread->flows;
        totals->untracked += thread->untracked;
        totals->by_flow += thread->untracked;
        for (size_t i = 0; i < (size_t)1 << table_bits; i++)
            totals->by_flow += thread->table[i].packets;
    }
}
