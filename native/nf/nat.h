/* Internals of the NAT: its state in the arena, and who may touch which field.
 *
 * A mapping slot *is* an outside endpoint: slot i belongs to outside address a and port p for
 * good (ranges[a].first + p - 1024 = i). So the way back in is an index computation, and giving
 * out a port is taking a slot from the free ring of its address. One slot serves one protocol at a
 * time: TCP and UDP do not share a port of an address.
 *
 * Shared variables, in ascending order of ids, which is the order in which a section takes them:
 *   group   four neighbouring hash buckets; protects `heads`, every link of their chains, and
 *           `last_seen` and `state` of the mappings in them
 *   pool    one per outside address; protects its ring of free slots
 *   stripe  every n-th slot; protects `key` of its slots
 *   set     of datagrams in fragments (nf/sets.h); protects what is known of them. Alone in its
 *           section
 *   hop     one for each side; protects what is known of its next hop. Alone in its section
 * `key` and `next` of a slot change only while the group *and* the stripe are held: outbound
 * packets read them under the group, inbound ones read `key` under the stripe, and neither needs
 * the other. Everything else of a slot is written once, by init.
 *
 * Readers are optimistic: what they load may be half-changed until ftmb_read_end() agrees. All
 * loads of such fields are relaxed atomic ones, slot numbers are checked before use, and walks
 * are bounded by MAX_CHAIN. */
#ifndef FTMB_NF_NAT_H
#define FTMB_NF_NAT_H

#include "nf/checksum.h"
#include "nf/nf.h"
#include "nf/packet.h"
#include "nf/sets.h"

#define NAT_FIRST_PORT 1024u
#define NAT_PORTS (65536u - NAT_FIRST_PORT)
#define NAT_MAX_ADDRESSES 512u
#define NAT_NONE UINT32_MAX

/* Mappings in one bucket. There are at least as many buckets as slots, so a longer chain means
 * an attack on the hash: a new flow that would make it longer is refused and counted. */
#define NAT_MAX_CHAIN 64u
#define NAT_GROUP_BITS 2u
/* Work per input, at most: groups that the sweep looks at, mappings that are removed. */
#define NAT_SWEEP_GROUPS 8u
#define NAT_REMOVALS 8u
/* Pools that a new flow may find dry under its lock. Each is one that another worker emptied since
 * it was looked at, but for the first. */
#define NAT_TRIES 8u

#define NAT_LOAD(field) (SIM_POINT(), __atomic_load_n(&(field), __ATOMIC_RELAXED))
#define NAT_STORE(field, value) (SIM_POINT(), __atomic_store_n(&(field), (value), __ATOMIC_RELAXED))

/* What a mapping is doing; each class has its own timeout. */
enum nat_state {
    NAT_UDP,
    NAT_ECHO,
    NAT_OPENING,     /* TCP, no answer to a SYN acknowledged yet */
    NAT_ESTABLISHED, /* TCP */
    NAT_CLOSING,     /* TCP, FIN or RST seen in either direction */
    NAT_STATES
};

enum nat_counter {
    NAT_OUTBOUND,
    NAT_INBOUND,
    NAT_HAIRPINNED,
    NAT_FRAGMENTS,   /* later ones, translated like their first */
    NAT_ICMP_ERRORS, /* translated, in either direction */
    NAT_CREATED,
    NAT_EXPIRED,
    NAT_REFRESHED, /* writes to a live mapping: last_seen or state */
    NAT_SWEPT,     /* groups that the sweep looked at */
    NAT_DATAGRAMS, /* that came in fragments, noted down */
    NAT_FORGOTTEN, /* of them */
    NAT_ARP_REPLIES,
    NAT_ARP_REQUESTS, /* each in the place of a packet */
    NAT_ARP_LEARNT,   /* ARP packets of a next hop */
    NAT_DROP_EXHAUSTED,
    NAT_DROP_CROWDED,
    NAT_DROP_UNKNOWN, /* no mapping of the receiver, or of the packet that an error quotes */
    NAT_DROP_HAIRPIN, /* echo from inside to an outside address of our own */
    NAT_DROP_SPOOFED, /* from inside, with such an address as its source */
    NAT_DROP_NO_HOP,  /* the next hop's MAC address is not known */
    NAT_DROP_ARP,
    NAT_DROP_NOT_IPV4,
    NAT_DROP_FRAGMENT,
    NAT_DROP_ICMP,
    NAT_DROP_PROTOCOL,
    NAT_DROP_MALFORMED,
    NAT_COUNTERS
};

/* 32 bytes, so that a slot never straddles a line. */
struct nat_slot {
    uint64_t key;       /* inside endpoint: address | port << 32 | protocol << 48; 0: free */
    uint64_t last_seen; /* stamp; at most timeout/8 behind the latest outbound packet */
    uint32_t next;      /* in its chain; of a free slot: its place in the ring */
    uint32_t address;   /* the outside endpoint, network order */
    uint16_t port;
    uint16_t ip_delta; /* checksum deltas outbound; written and read like `key` */
    uint16_t l4_delta;
    uint8_t state;
};
_Static_assert(sizeof(struct nat_slot) == 32, "two slots to a line");

/* A ring of free slots, oldest first: the port that was unused longest is given out first, so a
 * late packet for its last user has the longest time to die out. */
struct nat_pool {
    CACHE_ALIGNED uint32_t head; /* place of the oldest */
    uint32_t spare;
};

/* Read-only, hence apart from the pools' lines, which new flows write. */
struct nat_range {
    uint32_t first; /* slot of port 1024 */
    uint32_t size;
};

/* A datagram in fragments: how its first one was translated, and so are the others. */
struct nat_datagram {
    uint64_t addresses; /* source << 32 | destination, as they came */
    uint64_t rest;      /* identification | protocol << 16 | side << 24 | 1 << 32; 0: free */
    uint64_t seen;      /* stamp of the first fragment */
    uint32_t source;    /* as they left; network order, like those above */
    uint32_t destination;
};
_Static_assert(sizeof(struct nat_datagram) == 32, "two to a line");

/* The next hop of a side, if it is learnt by ARP. */
struct nat_hop {
    CACHE_ALIGNED uint64_t mac; /* 0: not known */
    uint64_t heard;             /* stamp of its latest ARP packet */
    uint64_t asked;             /* stamp of our latest request */
};

struct nat_worker {
    CACHE_ALIGNED uint64_t next_sweep; /* stamp at which the next group is due */
    uint32_t next_group;
    uint32_t removals; /* left for the input in hand */
    uint64_t counters[NAT_COUNTERS];
};

struct nat {
    uint32_t slots;
    uint32_t addresses;
    uint32_t first_address; /* host order */
    uint32_t bucket_shift;  /* 64 - bits of the bucket number */
    uint32_t groups;        /* ids 0 .. groups - 1 */
    uint32_t stripe_mask;
    uint32_t first_pool;   /* id */
    uint32_t first_stripe; /* id */
    uint32_t first_set;    /* id */
    struct sets datagrams;
    uint64_t datagram_ns; /* how long one is known */
    uint64_t mac;         /* our own; 0: MAC addresses stay as they are, and no ARP */
    uint64_t hop_mac[2];  /* of each side's next hop; 0: learnt from its gateway's ARP packets */
    uint32_t gateway[2];  /* addresses in network order; 0: none */
    uint32_t own[2];
    uint32_t first_hop; /* id */
    uint64_t hops_at;   /* struct nat_hop per side */
    uint64_t arp_ns;
    uint64_t heads_at; /* offsets from the arena's base: u32 per bucket */
    uint64_t slots_at; /* struct nat_slot per slot */
    uint64_t pools_at; /* struct nat_pool per address */
    uint64_t rings_at; /* u16 per slot: offset of a free slot in its address's range */
    uint64_t refresh_ns[NAT_STATES];
    uint64_t expire_ns[NAT_STATES];
    uint64_t sweep_ns; /* between two groups of one worker */
    uint64_t worker_at[FTMB_MAX_WORKERS];
    struct nat_range ranges[NAT_MAX_ADDRESSES];
};

/* What a packet needs of its mapping, copied out of it. */
struct nat_binding {
    uint32_t address;
    uint16_t port;
    uint16_t ip_delta;
    uint16_t l4_delta;
};

/* An outbound packet as the table sees it. */
struct nat_flow {
    uint64_t key;
    uint32_t tcp_payload;
    uint8_t tcp_flags;
    uint8_t protocol;
};

enum nat_verdict { NAT_BOUND, NAT_EXHAUSTED, NAT_CROWDED };

static inline struct nat_slot *nat_slots(struct arena *arena, const struct nat *nat)
{
    return (struct nat_slot *)((uint8_t *)arena + nat->slots_at);
}

static inline uint32_t *nat_heads(struct arena *arena, const struct nat *nat)
{
    return (uint32_t *)((uint8_t *)arena + nat->heads_at);
}

static inline struct nat_pool *nat_pools(struct arena *arena, const struct nat *nat)
{
    return (struct nat_pool *)((uint8_t *)arena + nat->pools_at);
}

static inline uint16_t *nat_ring(struct arena *arena, const struct nat *nat, uint32_t pool)
{
    return (uint16_t *)((uint8_t *)arena + nat->rings_at) + nat->ranges[pool].first;
}

static inline struct nat_worker *nat_worker(struct arena *arena, const struct nat *nat,
                                            uint32_t worker)
{
    return (struct nat_worker *)((uint8_t *)arena + nat->worker_at[worker]);
}

static inline struct nat_hop *nat_hop(struct arena *arena, const struct nat *nat, unsigned side)
{
    return (struct nat_hop *)((uint8_t *)arena + nat->hops_at) + side;
}

/* The pool of a slot. */
static inline uint32_t nat_pool_of(const struct nat *nat, const struct nat_slot *slot)
{
    return __builtin_bswap32(slot->address) - nat->first_address;
}

static inline uint32_t nat_bucket(const struct nat *nat, uint64_t key)
{
    return (uint32_t)(sets_mix(key) >> nat->bucket_shift);
}

static inline uint64_t nat_key(uint32_t address, uint16_t port, uint8_t protocol)
{
    return (uint64_t)protocol << 48 | (uint64_t)port << 32 | address;
}

/* The binding of an outbound flow: found, refreshed where that is due, or new. */
enum nat_verdict nat_bind(struct ftmb_ctx *ctx, const struct nat *nat, struct nat_worker *worker,
                          const struct nat_flow *flow, struct nat_binding *binding);

/* The binding that an inside endpoint has; nothing is refreshed. False: none. */
bool nat_find(struct ftmb_ctx *ctx, const struct nat *nat, uint64_t key,
              struct nat_binding *binding);

/* The inside endpoint behind slot `index` (which is < slots), and its deltas; 0: a free slot. */
uint64_t nat_inside(struct ftmb_ctx *ctx, const struct nat *nat, uint32_t index,
                    struct nat_binding *binding);

static inline bool nat_is_ours(const struct nat *nat, uint32_t address)
{
    return __builtin_bswap32(address) - nat->first_address < nat->addresses;
}

/* The inside endpoint that an outside one (in network order) belongs to; 0: to none of this
 * protocol. */
static inline uint64_t nat_owner(struct ftmb_ctx *ctx, const struct nat *nat, uint32_t address,
                                 uint16_t port, uint8_t protocol, struct nat_binding *binding)
{
    uint32_t number = __builtin_bswap32(address) - nat->first_address;
    uint32_t offset = __builtin_bswap16(port) - NAT_FIRST_PORT;
    uint64_t key = 0;
    if (likely(number < nat->addresses && offset < nat->ranges[number].size))
        key = nat_inside(ctx, nat, nat->ranges[number].first + offset, binding);
    return likely(key >> 48 == protocol) ? key : 0;
}

/* Of TCP, UDP and echo. */
static inline void nat_patch_l4(const struct packet_view *view, uint16_t delta)
{
    if (view->kind == PACKET_UDP)
        checksum_patch_udp(view->l4 + 6, delta);
    else
        checksum_patch(view->l4 + (view->kind == PACKET_TCP ? 16 : 2), delta);
}

/* Give a packet the MAC addresses that it leaves with. False: they are not known (nat_arp.c). */
bool nat_address(struct ftmb_ctx *ctx, const struct nat *nat, struct nat_worker *worker,
                 struct nf_packet *packet, enum nf_port side);

/* What is not IPv4 (nat_arp.c). */
void nat_arp(struct ftmb_ctx *ctx, const struct nat *nat, struct nat_worker *worker,
             struct nf_packet *packet);

/* A packet has been translated and leaves, if the next hop is known; it is counted as `what`. */
static inline void nat_send(struct ftmb_ctx *ctx, const struct nat *nat, struct nat_worker *worker,
                            struct nf_packet *packet, enum nf_port port, enum nat_counter what)
{
    if (unlikely(nat->mac) && !nat_address(ctx, nat, worker, packet, port))
        return;
    worker->counters[what]++;
    ftmb_emit(ctx, packet, port);
}

/* An inbound FIN or RST: shorten the mapping's timeout. */
void nat_close(struct ftmb_ctx *ctx, const struct nat *nat, struct nat_worker *worker,
               uint64_t key);

/* Remove what has expired in the groups that are due (at most NAT_SWEEP_GROUPS of them). */
void nat_sweep(struct ftmb_ctx *ctx, const struct nat *nat, struct nat_worker *worker);

static inline uint32_t nat_set(const struct nat *nat, const struct nat_datagram *key)
{
    return sets_pick(&nat->datagrams, sets_mix(key->addresses ^ sets_mix(key->rest)));
}

/* A fragment that is not the first of its datagram (nat_fragment.c). */
void nat_fragment(struct ftmb_ctx *ctx, const struct nat *nat, struct nat_worker *worker,
                  const struct packet_view *view, struct nf_packet *packet);
/* Is this the first fragment of a TCP, UDP or echo packet? Then its view becomes that of a packet.
 */
bool nat_fragment_first(struct packet_view *view);
/* It has been translated, and `packet` is what leaves. */
void nat_fragment_note(struct ftmb_ctx *ctx, const struct nat *nat, struct nat_worker *worker,
                       const struct packet_view *view, enum nf_port side,
                       const struct nf_packet *packet);

/* An ICMP message that is no echo (nat_icmp.c). */
void nat_icmp(struct ftmb_ctx *ctx, const struct nat *nat, struct nat_worker *worker,
              const struct packet_view *view, struct nf_packet *packet);

/* Hints for a burst (nf.h): stage 0 asks for the lines that the packet itself names, stage 1 for
 * the first mapping of its bucket. */
void nat_prefetch(const struct ftmb_ctx *ctx, const struct nf_packet *packet, unsigned stage);

/* The report of nf.h (nat_report.c). */
void nat_report(struct arena *arena, const struct nf_report *out);

#endif
