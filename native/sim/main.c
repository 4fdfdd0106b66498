/* ftmb-sim: the command line (docs/SIMULATOR.md). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "sim/run.h"
int main(int argc, char **argv)
{
    struct sim_options o = {-1,-1,-1,-1,-1,-1,-1,PROGRAM_ALL};
    uint64_t base = argc > 1 ? strtoull(argv[1],0,0) : 1, n = argc > 2 ? strtoull(argv[2],0,0) : 1;
    ftmb_planted = argc > 3 ? (unsigned)atoi(argv[3]) : 0;
    bool trace = argc > 4;
    setvbuf(stdout, NULL, _IOLBF, 0);
    uint64_t steps=0, bad=0, t=0;
    for (uint64_t s = base; s < base + n; s++) {
        struct sim_config c = config_draw(s, &o);
        bool ok = sim_run(&c, trace);
        steps += sim.steps; t += sim.now_ns;
        if (!ok) { bad++; printf("seed %lu program %d: %s: %s\n", s, c.program, sim.invariant, sim.violation); if (bad > 10) break; }
    }
    printf("steps %lu bad %lu virtual %.1f ms\n", steps, bad, (double)t/1e6);
    for (int i = 0; i < COVERAGE_COUNT; i++) printf("%10lu %s\n", coverage_count[i], coverage_name[i]);
    return bad != 0;
}
