/* Capture files: any bytes are a capture, or refused with a reason; of its frames, any bytes too, a
 * parsed one has what the generator uses inside it. */
#include "fuzz/file.h"
#include "traffic/capture_key.h"
#include "traffic/pcapfile.h"
#include "traffic/why.h"

static uint64_t seen;

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    struct pcap_file file;
    char why[TRAFFIC_WHY] = "";
    if (pcap_file_read(&file, file_with(bytes, size), why)) {
        HOLDS(*why);
        return 0;
    }
    HOLDS(file.count > 0);
    for (uint32_t i = 0; i < file.count; i++) {
        struct packet packet;
        uint8_t *frame = malloc(file.frames[i].length ? file.frames[i].length : 1);
        HOLDS(frame);
        memcpy(frame, file.frames[i].bytes, file.frames[i].length);
        if (packet_parse(&packet, frame, file.frames[i].length)) {
            if (!packet_sums_ok(&packet, true))
                packet_sums_set(&packet);
            seen ^= capture_key(&packet, OUTBOUND);
        }
        free(frame);
    }
    pcap_file_free(&file);
    return 0;
}
