/* Frames of a capture file, all of them or none. */
#ifndef FTMB_TRAFFIC_PCAPFILE_H
#define FTMB_TRAFFIC_PCAPFILE_H

#include "core/base.h"

/* Largest frame, without its check sequence: 1518 bytes with it. */
#define PCAP_MAX_FRAME 1514u
#define PCAP_MAX_FRAMES 65536u

struct pcap_frame {
    const uint8_t *bytes;
    uint32_t length;
};

struct pcap_file {
    struct pcap_frame *frames;
    uint32_t count;
    uint8_t *memory;
};

/* Read a pcap or pcapng file of Ethernet frames. Returns 0, or -1 with one line in `why`
 * (TRAFFIC_WHY bytes) that names the file: cannot be read, truncated, not Ethernet, empty, a frame
 * that was recorded in part or is longer than PCAP_MAX_FRAME, more than PCAP_MAX_FRAMES frames. */
int pcap_file_read(struct pcap_file *file, const char *path, char *why);
void pcap_file_free(struct pcap_file *file);

#endif
