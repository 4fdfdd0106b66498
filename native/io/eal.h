/* Start and end of DPDK's environment, set up for processes that are killed for a living: no huge
 * pages, nothing shared between processes except the links, nothing left outside `dir`. */
#ifndef FTMB_IO_EAL_H
#define FTMB_IO_EAL_H

/* Most threads io_eal_init() can place. */
#define IO_MAX_LCORES 32

/* Initialise DPDK. `process` names this process in file names; `dir` is an existing private
 * directory, below which DPDK's runtime files go; `memory_mb` is the memory for all pools and links
 * (allocated lazily by the kernel: only what is touched costs). Lcore i (0 <= i < n) is pinned to
 * cpu cpus[i]; several may name the same cpu. The calling thread becomes lcore n, free to run on
 * any cpu the process may use. SIGPIPE is ignored from here on.
 * Returns 0, or a negative errno after one line on stderr. Call once, from the main thread. */
int io_eal_init(const char *process, const char *dir, unsigned memory_mb, const unsigned *cpus,
                unsigned n);

/* For tests: ftmb-node itself leaves with _exit(). Close every port still open and remove DPDK's
 * runtime files; lcores must have stopped. A killed process leaves those files inside the `dir` of
 * io_eal_init(), to be removed with it. */
void io_eal_end(void);

#endif
