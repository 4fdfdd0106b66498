/* nat, ICMP errors (RFC 5508, section 4): a message about a packet that was translated is
 * translated like that packet, so that whoever sent it recognises what the message quotes.
 *
 * From outside, the quoted packet is one that went out: its source is one of our outside endpoints,
 * and becomes the inside one; the message goes there. From inside, the quoted packet is one that
 * came in (its destination is an inside endpoint, and becomes the outside one), and the message
 * comes from that outside address, whichever inside router has sent it. If the quoted packet was
 * hairpinned, both are done.
 *
 * Nothing is created, refreshed or removed: who forges an error gains nothing by it. Dropped as
 * dropped_icmp: other messages than destination unreachable, time exceeded and parameter problem,
 * wrong ICMP and quoted IPv4 checksums, errors that do not go to the source of what they quote.
 * Without a mapping: dropped_no_mapping. Accesses: a read, two if it was hairpinned. */
#include "nf/nat.h"

#define TCP_CHECKSUM_END 18u /* bytes of a TCP header up to there */

/* Give the quoted packet another source or destination. Its own checksums follow, as far as they
 * are quoted. */
static void requote(const struct packet_view *quoted, bool source, uint32_t address, uint16_t port)
{
    bool echo = quoted->kind == PACKET_ECHO;
    uint8_t *address_at = quoted->ip + (source ? 12 : 16);
    uint8_t *port_at = quoted->l4 + (echo ? 4 : source ? 0 : 2);
    uint16_t ip_delta = checksum_delta32(packet_load32(address_at), address);
    uint16_t l4_delta = checksum_delta16(packet_load16(port_at), port);
    packet_store32(address_at, address);
    packet_store16(port_at, port);
    checksum_patch(quoted->ip + 10, ip_delta);
    if (quoted->kind != PACKET_TCP || quoted->l4_bytes >= TCP_CHECKSUM_END)
        nat_patch_l4(quoted, echo ? l4_delta : checksum_join(l4_delta, ip_delta));
}

/* Give the message another source or destination: no part of an ICMP checksum. */
static void readdress(const struct packet_view *view, bool source, uint32_t address)
{
    uint8_t *at = view->ip + (source ? 12 : 16);
    checksum_patch(view->ip + 10, checksum_delta32(packet_load32(at), address));
    packet_store32(at, address);
}

static bool sound(const struct packet_view *view, const struct packet_view *quoted)
{
    return quoted->source == view->destination &&
           checksum_sum(view->l4, view->l4_bytes) == 0xffff &&
           checksum_sum(quoted->ip, (uint32_t)(quoted->l4 - quoted->ip)) == 0xffff;
}

/* Only echo requests go out, and only replies come in. */
static bool passed(const struct packet_view *quoted, enum nf_port from)
{
    return quoted->kind != PACKET_ECHO ||
           quoted->icmp_type == (from == NF_OUTSIDE ? ICMP_ECHO_REQUEST : ICMP_ECHO_REPLY);
}

void nat_icmp(struct ftmb_ctx *ctx, const struct nat *nat, struct nat_worker *worker,
              const struct packet_view *view, struct nf_packet *packet)
{
    struct packet_view quoted;
    struct nat_binding binding, ignored;
    bool inside = packet->port == NF_INSIDE;
    if (!packet_quoted(view, &quoted) || !sound(view, &quoted) || !passed(&quoted, packet->port)) {
        worker->counters[NAT_DROP_ICMP]++;
        return;
    }
    bool to_inside = !inside || nat_is_ours(nat, view->destination);
    uint64_t receiver = 0;
    uint64_t sender = nat_key(quoted.destination, quoted.destination_port, quoted.protocol);
    bool known = !inside || nat_find(ctx, nat, sender, &binding);
    if (known && to_inside) {
        receiver =
            nat_owner(ctx, nat, quoted.source, quoted.source_port, quoted.protocol, &ignored);
        known = receiver != 0;
    }
    if (!known) {
        worker->counters[NAT_DROP_UNKNOWN]++;
        return;
    }
    if (inside) {
        requote(&quoted, false, binding.address, binding.port);
        readdress(view, true, binding.address);
    }
    if (to_inside) {
        requote(&quoted, true, (uint32_t)receiver, (uint16_t)(receiver >> 32));
        readdress(view, false, (uint32_t)receiver);
    }
    packet_store16(view->l4 + 2, 0);
    packet_store16(view->l4 + 2, (uint16_t)~checksum_sum(view->l4, view->l4_bytes));
    nat_send(ctx, nat, worker, packet, to_inside ? NF_INSIDE : NF_OUTSIDE, NAT_ICMP_ERRORS);
}
