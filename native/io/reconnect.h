/* Clients of vhost-user links reconnect as soon as a new server has made its socket.
 *
 * By itself DPDK's vhost library tries once a second, with a thread that sleeps between its rounds;
 * a fresh replica with two links, opened one after the other, waited two to three seconds for it.
 * A thread of ours sees within milliseconds that there is a new socket file, and then ends that
 * sleep with a signal. Everything else stays the library's. */
#ifndef FTMB_IO_RECONNECT_H
#define FTMB_IO_RECONNECT_H

#include <stdint.h>

/* Watch the socket `path` of client port `port`. A failure only leaves the link slow to return;
 * it is told in one line on stderr. */
void reconnect_watch(uint16_t port, const char *path);

/* The port is about to be closed. */
void reconnect_forget(uint16_t port);

#endif
