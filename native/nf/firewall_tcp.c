/* TCP as the firewall follows it: the state of a connection, and whether a segment's numbers may
 * occur in it. The bounds are those of van Rooij, "Real Stateful TCP Packet Filtering in IP Filter"
 * (2001): what a side sends lies below what the other has allowed and not further back than the
 * other's largest window; it acknowledges what was sent, and nothing very old. */
#include "nf/firewall.h"

#define WINDOW_SCALE_OPTION 3u
#define FLAGS (TCP_FIN | TCP_SYN | TCP_RST | TCP_ACK)

static uint32_t host32(const uint8_t *at)
{
    return __builtin_bswap32(packet_load32(at));
}

/* The window scale that a SYN offers. Options are any bytes: the walk ends where they do. */
static uint8_t scale_of(const uint8_t *l4)
{
    uint32_t at = TCP_MIN_BYTES, end = (uint32_t)(l4[12] >> 4) * 4;
    while (at < end && l4[at] != 0) {
        uint32_t length = l4[at] == 1 ? 1 : at + 1 < end ? l4[at + 1] : 0;
        if (length == 0 || (length == 1 && l4[at] != 1) || at + length > end)
            break;
        if (l4[at] == WINDOW_SCALE_OPTION && length == 3)
            return l4[at + 2] < FW_MAX_SCALE ? l4[at + 2] : FW_MAX_SCALE;
        at += length;
    }
    return FW_NO_SCALE;
}

struct fw_segment fw_segment_of(const struct packet_view *view)
{
    const uint8_t *l4 = view->l4;
    struct fw_segment segment = {.seq = host32(l4 + 4),
                                 .ack = host32(l4 + 8),
                                 .window = packet_host16(l4 + 14),
                                 .flags = view->tcp_flags & FLAGS,
                                 .scale = FW_NO_SCALE};
    segment.end = segment.seq + view->payload + ((segment.flags & TCP_SYN) != 0) +
                  ((segment.flags & TCP_FIN) != 0);
    if (segment.flags & TCP_SYN)
        segment.scale = scale_of(l4);
    return segment;
}

bool fw_flags_sound(uint8_t flags)
{
    if (flags & TCP_SYN)
        return !(flags & (TCP_FIN | TCP_RST));
    return (flags & (TCP_ACK | TCP_RST)) && (flags & (TCP_FIN | TCP_RST)) != (TCP_FIN | TCP_RST);
}

/* Is a not beyond b, modulo 2^32? */
static bool up_to(uint32_t a, uint32_t b)
{
    return (int32_t)(b - a) >= 0;
}

static uint32_t at_least_one(uint32_t window)
{
    return window ? window : 1; /* a sender may probe a closed window with a byte */
}

void fw_tcp_open(struct fw_connection *connection, const struct fw_segment *segment, unsigned side)
{
    connection->flow.state = FW_SYN_SENT;
    connection->end[side] = segment->end;
    connection->limit[side] = segment->end;
    connection->window[side] = at_least_one(segment->window);
    connection->scale[side] = segment->scale;
}

bool fw_tcp_over(const struct fw_connection *connection, const struct fw_segment *segment)
{
    return segment->flags == TCP_SYN && connection->flow.state >= FW_CLOSING;
}

/* Windows are scaled if both sides offered to. */
static void answer(struct fw_connection *connection, const struct fw_segment *segment,
                   unsigned side)
{
    unsigned other = 1 - side;
    connection->flow.state = FW_SYN_ANSWERED;
    connection->end[side] = segment->end;
    connection->limit[side] = segment->end + connection->window[other];
    connection->window[side] = at_least_one(segment->window);
    connection->limit[other] = segment->ack + connection->window[side];
    connection->scale[side] = segment->scale;
    if (connection->scale[0] == FW_NO_SCALE || connection->scale[1] == FW_NO_SCALE)
        connection->scale[0] = connection->scale[1] = 0;
}

static bool in_window(const struct fw_connection *connection, const struct fw_segment *segment,
                      unsigned side)
{
    unsigned other = 1 - side;
    uint32_t slack =
        connection->window[side] > FW_ACK_SLACK ? connection->window[side] : FW_ACK_SLACK;
    if (!up_to(segment->end, connection->limit[side]) ||
        !up_to(connection->end[side] - connection->window[other], segment->seq))
        return false;
    return !(segment->flags & TCP_ACK) || (up_to(segment->ack, connection->end[other]) &&
                                           up_to(connection->end[other] - slack, segment->ack));
}

static void slide(struct fw_connection *connection, const struct fw_segment *segment, unsigned side)
{
    unsigned other = 1 - side, scale = segment->flags & TCP_SYN ? 0 : connection->scale[side];
    uint32_t window = at_least_one(segment->window << scale);
    if (up_to(connection->end[side], segment->end))
        connection->end[side] = segment->end;
    if (!(segment->flags & TCP_ACK))
        return;
    if (window > connection->window[side])
        connection->window[side] = window;
    if (up_to(connection->limit[other], segment->ack + window))
        connection->limit[other] = segment->ack + window;
}

/* A SYN was seen, no answer: numbers of the other side are not known. */
static enum fw_counter while_sent(struct fw_connection *connection,
                                  const struct fw_segment *segment, unsigned side, bool check)
{
    unsigned opener = connection->opener;
    if (side == opener) {
        if (!(segment->flags & TCP_RST) && segment->flags != TCP_SYN)
            return FW_DROP_STATE;
        uint32_t number = segment->flags & TCP_RST ? segment->seq : segment->end;
        if (check && number != connection->end[side])
            return FW_DROP_WINDOW;
    } else {
        if (!(segment->flags & TCP_RST) && segment->flags != (TCP_SYN | TCP_ACK))
            return FW_DROP_STATE;
        if (check && (!(segment->flags & TCP_ACK) || segment->ack != connection->end[opener]))
            return FW_DROP_WINDOW;
        if (!(segment->flags & TCP_RST))
            answer(connection, segment, side);
    }
    if (segment->flags & TCP_RST)
        connection->flow.state = FW_CLOSED;
    return FW_FORWARDED;
}

/* Which flags may come once both sides have sent a SYN? */
static bool expected(const struct fw_connection *connection, const struct fw_segment *segment,
                     unsigned side)
{
    bool opens = side == connection->opener;
    if (segment->flags & TCP_RST)
        return connection->flow.state != FW_CLOSED;
    if (connection->flow.state == FW_SYN_ANSWERED)
        return opens ? segment->flags == TCP_SYN || !(segment->flags & TCP_SYN)
                     : segment->flags == (TCP_SYN | TCP_ACK);
    /* An answer that comes again, because the opener's acknowledgement was lost. */
    if (segment->flags & TCP_SYN)
        return connection->flow.state == FW_ESTABLISHED && !opens && (segment->flags & TCP_ACK);
    return connection->flow.state != FW_CLOSED;
}

enum fw_counter fw_tcp_next(struct fw_connection *connection, const struct fw_segment *segment,
                            unsigned side, bool check)
{
    if (connection->flow.state == FW_SYN_SENT)
        return while_sent(connection, segment, side, check);
    if (!expected(connection, segment, side))
        return FW_DROP_STATE;
    if (check && !in_window(connection, segment, side))
        return FW_DROP_WINDOW;
    slide(connection, segment, side);
    if (segment->flags & TCP_FIN)
        connection->fins |= (uint8_t)(1u << side);
    if (segment->flags & TCP_RST)
        connection->flow.state = FW_CLOSED;
    else if (connection->fins == 3)
        connection->flow.state = FW_CLOSING;
    else if (connection->flow.state == FW_SYN_ANSWERED && !(segment->flags & TCP_SYN))
        connection->flow.state = FW_ESTABLISHED;
    return FW_FORWARDED;
}
