/* Capture files, through libpcap. */
#include "traffic/pcapfile.h"

#include "traffic/why.h"

#include <pcap/pcap.h>
#include <stdlib.h>
#include <string.h>

/* Is one frame usable? `number` counts from 1, as capture viewers do. */
static int check_frame(const char *path, uint32_t number, const struct pcap_pkthdr *head, char *why)
{
    if (head->caplen < head->len)
        return traffic_why(why,
                           "%s: frame %u was recorded in part (%u of %u bytes): record without a "
                           "snapshot length",
                           path, number, head->caplen, head->len);
    if (head->caplen > PCAP_MAX_FRAME)
        return traffic_why(why,
                           "%s: frame %u has %u bytes, more than %u: record with segmentation "
                           "offload off (ethtool -K IFACE tso off gso off gro off)",
                           path, number, head->caplen, PCAP_MAX_FRAME);
    if (number > PCAP_MAX_FRAMES)
        return traffic_why(why, "%s: more than %u frames: cut it shorter", path, PCAP_MAX_FRAMES);
    return 0;
}

/* Copy every frame of `pcap` to the end of file->memory; frames[].bytes are set afterwards, since
 * the memory moves while it grows. */
static int read_frames(struct pcap_file *file, pcap_t *pcap, const char *path, char *why)
{
    struct pcap_pkthdr *head;
    const u_char *data;
    size_t used = 0, size = 0;
    int rc;
    while ((rc = pcap_next_ex(pcap, &head, &data)) == 1) {
        if (check_frame(path, file->count + 1, head, why))
            return -1;
        if (used + head->caplen > size || size == 0) {
            size = 2 * size + PCAP_MAX_FRAME;
            uint8_t *more = realloc(file->memory, size);
            if (!more)
                return traffic_why(why, "%s: no memory", path);
            file->memory = more;
        }
        memcpy(file->memory + used, data, head->caplen);
        file->frames[file->count++] = (struct pcap_frame){.length = head->caplen};
        used += head->caplen;
    }
    if (rc == PCAP_ERROR)
        return traffic_why(why, "%s: damaged capture file after frame %u: %s", path, file->count,
                           pcap_geterr(pcap));
    if (file->count == 0)
        return traffic_why(why, "%s: capture file without frames", path);
    const uint8_t *bytes = file->memory;
    for (uint32_t i = 0; i < file->count; i++) {
        file->frames[i].bytes = bytes;
        bytes += file->frames[i].length;
    }
    return 0;
}

int pcap_file_read(struct pcap_file *file, const char *path, char *why)
{
    char error[PCAP_ERRBUF_SIZE];
    *file = (struct pcap_file){0};
    pcap_t *pcap = pcap_open_offline(path, error);
    if (!pcap) {
        /* Some of libpcap's messages begin with the path, some do not. */
        bool named = strncmp(error, path, strlen(path)) == 0;
        return named ? traffic_why(why, "%s", error)
                     : traffic_why(why, "%s: not a readable capture file: %s", path, error);
    }
    int rc = -1;
    file->frames = calloc(PCAP_MAX_FRAMES, sizeof(*file->frames));
    if (!file->frames)
        traffic_say(why, "%s: no memory", path);
    else if (pcap_datalink(pcap) != DLT_EN10MB)
        traffic_say(why, "%s: frames of link type %s, not Ethernet", path,
                    pcap_datalink_val_to_name(pcap_datalink(pcap)));
    else
        rc = read_frames(file, pcap, path, why);
    pcap_close(pcap);
    if (rc)
        pcap_file_free(file);
    return rc;
}

void pcap_file_free(struct pcap_file *file)
{
    free(file->frames);
    free(file->memory);
    *file = (struct pcap_file){0};
}
