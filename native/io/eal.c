/* Start and end of DPDK's environment (see eal.h). */
#include "io/eal.h"

#include <errno.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_log.h>
#include <rte_memory.h>

#include "io/port.h"

/* Where DPDK keeps this process's files: <dir>/dpdk/<prefix>; its parents are ours to remove. */
static char runtime_root[PATH_MAX];
static char runtime_prefix[64];

static int complain(int error, const char *what)
{
    fprintf(stderr, "ftmb-node: %s: %s\n", what, strerror(error));
    return -error;
}

/* Append cpu numbers of `set` as DPDK's "(0,1,5)". Returns the length, or -1 if it does not fit. */
static int format_cpus(char *out, size_t size, const cpu_set_t *set)
{
    size_t used = 0;
    char separator = '(';

    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (!CPU_ISSET(cpu, set))
            continue;
        used += (size_t)snprintf(out + used, size - used, "%c%d", separator, cpu);
        if (used + 2 > size)
            return -1;
        separator = ',';
    }
    out[used++] = ')';
    out[used] = '\0';
    return (int)used;
}

/* The value of --lcores: worker lcores pinned one by one, then the main lcore on any cpu. */
static int format_lcores(char *out, size_t size, const unsigned *cpus, unsigned n)
{
    cpu_set_t allowed;
    size_t used = 0;

    if (sched_getaffinity(0, sizeof(allowed), &allowed) != 0)
        return complain(errno, "cannot read the allowed cpus");
    for (unsigned i = 0; i < n; i++) {
        if (cpus[i] >= CPU_SETSIZE || !CPU_ISSET(cpus[i], &allowed)) {
            fprintf(stderr, "ftmb-node: cpu %u is not available to this process\n", cpus[i]);
            return -EINVAL;
        }
        used += (size_t)snprintf(out + used, size - used, "%u@%u,", i, cpus[i]);
        if (used + 16 > size)
            return complain(E2BIG, "too many lcores");
    }
    used += (size_t)snprintf(out + used, size - used, "%u@", n);
    if (format_cpus(out + used, size - used, &allowed) < 0)
        return complain(E2BIG, "too many cpus");
    return 0;
}

/* Point DPDK's runtime directory below `dir`. It would otherwise go below /var/run or the user's
 * runtime directory, where every killed process would leave one behind for good. */
static int place_runtime(const char *process, const char *dir)
{
    int length = snprintf(runtime_prefix, sizeof(runtime_prefix), "%s", process);

    if (length <= 0 || (size_t)length >= sizeof(runtime_prefix) || strchr(process, '/') != NULL)
        return complain(EINVAL, "process name");
    length =
        snprintf(runtime_root, sizeof(runtime_root), "%s/eal-%s.%ld", dir, process, (long)getpid());
    if (length <= 0 || (size_t)length >= sizeof(runtime_root))
        return complain(ENAMETOOLONG, dir);
    if (mkdir(runtime_root, 0700) != 0 && errno != EEXIST)
        return complain(errno, runtime_root);
    /* DPDK reads the first when it is set (systemd's name), older releases only the second. */
    if (setenv("RUNTIME_DIRECTORY", runtime_root, 1) != 0 ||
        setenv("XDG_RUNTIME_DIR", runtime_root, 1) != 0)
        return complain(errno, "environment");
    return 0;
}

/* Packet memory in large pages where the kernel gives them (shmem_enabled advise): thousands of
 * buffers of 4-KiB pages do not fit the TLB, and in a virtual machine a miss is two page walks. */
static int advise_huge(const struct rte_memseg_list *list, void *arg)
{
    (void)arg;
    madvise(list->base_va, list->len, MADV_HUGEPAGE);
    return 0;
}

int io_eal_init(const char *process, const char *dir, unsigned memory_mb, const unsigned *cpus,
                unsigned n)
{
    static char lcores[8192], memory[16], main_lcore[16];
    int rc;

    signal(SIGPIPE, SIG_IGN);
    if (n == 0 || n > IO_MAX_LCORES)
        return complain(EINVAL, "number of lcores");
    rc = place_runtime(process, dir);
    if (rc == 0)
        rc = format_lcores(lcores, sizeof(lcores), cpus, n);
    if (rc != 0)
        return rc;
    snprintf(memory, sizeof(memory), "%u", memory_mb);
    snprintf(main_lcore, sizeof(main_lcore), "%u", n);
    char *arguments[] = {
        "ftmb-node",      "--no-huge",   "-m",    memory,         "--no-shconf", "--no-pci",
        "--no-telemetry", "--lcores",    lcores,  "--main-lcore", main_lcore,    "--file-prefix",
        runtime_prefix,   "--log-level", "error", NULL,
    };
    /* Not DPDK's default stream: it also writes to the system log. */
    rte_openlog_stream(stderr);
    if (rte_eal_init((int)RTE_DIM(arguments) - 1, arguments) < 0) {
        fprintf(stderr, "ftmb-node: cannot start DPDK with %u MB: %s\n", memory_mb,
                rte_strerror(rte_errno));
        return rte_errno != 0 ? -rte_errno : -EIO;
    }
    rte_memseg_list_walk(advise_huge, NULL);
    return 0;
}

void io_eal_end(void)
{
    char path[PATH_MAX + 128];

    /* A peer that ended first makes the drivers complain about each step of taking links down. */
    rte_log_set_global_level(RTE_LOG_CRIT);
    for (uint16_t port = 0; port < RTE_MAX_ETHPORTS; port++)
        if (rte_eth_dev_is_valid_port(port))
            io_close(port);
    rte_eal_cleanup();
    snprintf(path, sizeof(path), "%s/dpdk/%s", runtime_root, runtime_prefix);
    rmdir(path);
    snprintf(path, sizeof(path), "%s/dpdk", runtime_root);
    rmdir(path);
    rmdir(runtime_root);
}
