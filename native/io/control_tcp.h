/* Control connections between hosts: TCP, let in by a secret token of the trial. For control.c, and
 * for whoever reads where to listen. Nothing here is encrypted: the token keeps out strangers and
 * strays of other trials, not somebody who reads the network. */
#ifndef FTMB_IO_CONTROL_TCP_H
#define FTMB_IO_CONTROL_TCP_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>

#define CONTROL_TOKEN_BYTES 32
/* The first bytes of a connection: a word that tells what follows, and the token. */
#define CONTROL_PREAMBLE_BYTES (8 + CONTROL_TOKEN_BYTES)
/* A peer whose host is silent for this long is gone, whether or not anything is on its way. */
#define CONTROL_SILENT_MS 3000

/* Is this the address of a TCP socket ("tcp:ADDRESS:PORT"), not the path of a Unix socket? */
bool control_is_tcp(const char *path);

/* What it names. -EINVAL: not an IPv4 address of one host, or not a port. Any text is safe. */
int control_tcp_address(const char *path, struct sockaddr_in *address);

/* Read the secret of this process's connections from a file of CONTROL_TOKEN_BYTES bytes that
 * nobody else may read. 0, or a negative errno after one line on stderr. Before anything connects.
 */
int control_use_token(const char *file);

/* Whoever came with another token, or with none. */
uint64_t control_refused(void);

/* The three below are what control_listen(), control_connect() and control_accept() are for a Unix
 * socket, with the same results. A connection attempt takes up to CONTROL_ATTEMPT_MS even if
 * `timeout_ms` is 0. */
#define CONTROL_ATTEMPT_MS 25
int control_tcp_listen(const char *path);
int control_tcp_connect(const char *path, unsigned timeout_ms);

/* May this new connection stay? 0, or -EPERM: counted, and for the caller to close. Does not wait:
 * the listener gives out connections once they have sent something, or said nothing for a second;
 * one whose 40 bytes are not there by then is refused, and a peer tries again. */
int control_tcp_admit(int fd);

#endif
