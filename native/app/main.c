/* ftmb-node: reads a node spec, opens links, places roles on cores, obeys commands on stdin.
 *
 * Exit codes: 0 orderly end, 2 bad spec or argument, 3 cannot be set up, 4 the protocol was
 * violated or state is lost, 5 a peer is gone, 6 fenced: this process counts no more. */
#include <errno.h>
#include <rte_launch.h>
#include <rte_lcore.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "app/links.h"
#include "app/spec.h"
#include "io/control_tcp.h"
#include "io/crash.h"
#include "io/eal.h"
#include "io/event.h"
#include "io/slices.h"
#include "roles/input_logger.h"
#include "roles/output_logger.h"
#include "roles/replica.h"
#include "roles/telemetry.h"
#include "roles/traffic_role.h"

#define LINKS_TIMEOUT_MS 15000
/* The highest priority that is still shared fairly: real time would starve the kernel's own work.
 */
#define DATA_PLANE_NICENESS (-19)

struct lcore_work {
    unsigned count;
    struct role role[NODE_MAX_ROLES + TRUNK_MAX];
};

static struct node {
    struct node_config config;
    struct node_roles roles;
    struct node_links links;
    struct role traffic;
    struct output_logger ol;
    struct input_logger il;
    struct replica replica;
    struct lcore_work work[NODE_MAX_LCORES];
    _Atomic bool quit;
} node;

static void invariant_broken(const char *file, int line, const char *what)
{
    crash_note(0);
    die(4, "invariant broken at %s:%d: %s", file, line, what);
}

/* The kernel's khugepaged, which makes large pages of small ones, holds a process's memory map
 * while it works, at the least priority. Where pollers have all cores it was seen to hold one for
 * 13 s, in which no thread of that process could fork, map memory or take a page fault. */
static void do_without_large_pages(void)
{
    (void)prctl(PR_SET_THP_DISABLE, 1ul, 0ul, 0ul, 0ul);
}

static void give_way(void)
{
    if (!atomic_load_explicit(&node.replica.hurry, memory_order_relaxed))
        (void)sched_yield();
}

static int lcore_main(void *arg)
{
    const struct lcore_work *work = arg;
    crash_own_stack();
    while (!atomic_load_explicit(&node.quit, memory_order_relaxed)) {
        unsigned done = 0;
        for (unsigned i = 0; i < work->count; i++)
            done += work->role[i].poll(work->role[i].self);
        if (done == 0)
            node.config.yield ? (void)sched_yield() : cpu_relax();
    }
    return 0;
}

/* The worker that a role name like "worker:1" means; -1: it is not of this form. */
static int worker_index(const char *name)
{
    static const char prefix[] = "worker:";
    if (strncmp(name, prefix, sizeof(prefix) - 1) != 0)
        return -1;
    const char *digits = name + sizeof(prefix) - 1;
    char *end;
    unsigned long index = strtoul(digits, &end, 10);
    if (end == digits || *end || index >= node.config.workers)
        return -1;
    return (int)index;
}

static void find_roles(void)
{
    unsigned workers = 0;
    for (uint32_t i = 0; i < node.config.lcores; i++) {
        for (uint32_t r = 0; r < node.config.lcore[i].roles; r++) {
            const char *name = node.config.lcore[i].role[r];
            if (strcmp(name, "traffic") == 0)
                node.roles.traffic = true;
            else if (strcmp(name, "il") == 0)
                node.roles.il = true;
            else if (strcmp(name, "ol") == 0)
                node.roles.ol = true;
            else if (worker_index(name) >= 0)
                workers++;
            else
                die(2, "unknown role '%s' in lcores", name);
        }
    }
    node.roles.replica = workers > 0;
    if (workers && workers != node.config.workers)
        die(2, "a replica needs all its %u workers in lcores", node.config.workers);
    if (node.roles.traffic != (node.config.traffic != NULL))
        die(2, "role traffic and section 'traffic' belong together");
}

static void start_dpdk(void)
{
    unsigned cpus[NODE_MAX_LCORES];
    for (uint32_t i = 0; i < node.config.lcores; i++)
        cpus[i] = node.config.lcore[i].cpu;
    if (io_eal_init(node.config.process, node.config.dir, node.config.memory_mb, cpus,
                    node.config.lcores))
        _exit(3);
}

static void create_roles(void)
{
    const struct node_config *config = &node.config;
    struct node_links *links = &node.links;
    int error = 0;
    if (node.roles.traffic)
        error = traffic_create(&node.traffic, config->traffic, links->traffic_tx,
                               links->traffic_lanes, links->traffic_rx, links->traffic_lanes,
                               config->mode == MODE_DIRECT, config->workers, config->noise_cpu,
                               config->noise_cpus, links->traffic_pool);
    if (error) /* it has said why: a file that the section names is bad, or memory is short */
        _exit(error == -EINVAL ? 2 : 3);
    if (node.roles.ol)
        error = output_logger_create(&node.ol, config, links->ol_replica, links->ol_out,
                                     links->ol_pool);
    if (!error && node.roles.il)
        error =
            input_logger_create(&node.il, config, links->il_in, links->il_replica, links->il_pool);
    if (!error && node.roles.replica) {
        struct rte_mempool *pools[FTMB_MAX_WORKERS];
        for (uint32_t w = 0; w < config->workers; w++)
            pools[w] = links->worker_pool;
        error = replica_create(&node.replica, config, links->replica_in, links->replica_out, pools);
    }
    if (error)
        _exit(3);
}

static struct role role_named(const char *name)
{
    if (strcmp(name, "traffic") == 0)
        return node.traffic;
    if (strcmp(name, "il") == 0)
        return input_logger_role(&node.il);
    if (strcmp(name, "ol") == 0)
        return output_logger_role(&node.ol);
    return replica_worker_role(&node.replica, (uint32_t)worker_index(name));
}

static void launch(void)
{
    for (uint32_t i = 0; i < node.config.lcores; i++) {
        struct lcore_work *work = &node.work[i];
        for (uint32_t r = 0; r < node.config.lcore[i].roles; r++)
            work->role[work->count++] = role_named(node.config.lcore[i].role[r]);
        for (unsigned t = 0; t < node.links.trunks; t++)
            work->role[work->count++] =
                (struct role){.name = "trunk", .self = node.links.trunk[t], .poll = trunk_poll};
        if (rte_eal_remote_launch(lcore_main, work, i))
            die(3, "cannot start lcore %u", i);
    }
}

static void emit_stats(json_t *stats)
{
    event_emit("stats", "o", stats);
}

static void emit_traffic_stats(void)
{
    json_t *stats = node.traffic.stats(node.traffic.self);
    json_object_set_new(stats, "role", json_string("traffic"));
    emit_stats(stats);
}

static void finish(void)
{
    atomic_store(&node.quit, true);
    if (node.roles.replica)
        replica_stop(&node.replica);
    rte_eal_mp_wait_lcore();
    if (node.roles.il)
        input_logger_stop(&node.il);
    if (node.roles.ol)
        output_logger_stop(&node.ol);
    json_t *faults = fault_stats();
    if (faults)
        emit_stats(json_pack("{s:s,s:o}", "role", "links", "links", faults));
    json_t *trunks = trunk_stats();
    if (trunks)
        emit_stats(json_pack("{s:s,s:o,s:I}", "role", "trunks", "interfaces", trunks,
                             "control_refused", (json_int_t)control_refused()));
    if (node.roles.traffic)
        emit_traffic_stats();
    struct role il = input_logger_role(&node.il), ol = output_logger_role(&node.ol);
    if (node.roles.il)
        emit_stats(il.stats(il.self));
    if (node.roles.ol)
        emit_stats(ol.stats(ol.self));
    if (node.roles.replica)
        emit_stats(replica_stats(&node.replica));
}

/* "cut LINK" or "restore LINK"; false: another command. */
static bool obey_fault(const char *line)
{
    char verb[8], link[FAULT_NAME_BYTES], rest;
    if (sscanf(line, "%7s %15s %c", verb, link, &rest) != 2)
        return false;
    bool cut = strcmp(verb, "cut") == 0;
    if (!cut && strcmp(verb, "restore") != 0)
        return false;
    if (fault_cut(link, cut)) {
        event_emit(cut ? "link_cut" : "link_restored", "{s:s}", "link", link);
    } else {
        fprintf(stderr, "ftmb-node: this process has no link '%s'\n", link);
        event_emit("unknown_link", "{s:s}", "link", link);
    }
    return true;
}

static void emit_telemetry(void)
{
    if (node.roles.il)
        event_emit("telemetry", "o", il_telemetry(&node.il));
    if (node.roles.ol)
        event_emit("telemetry", "o", ol_telemetry(&node.ol));
    if (node.roles.replica)
        event_emit("telemetry", "o", replica_telemetry(&node.replica));
}

static void tell_roles(const char *line)
{
    struct role il = input_logger_role(&node.il), ol = output_logger_role(&node.ol);
    if (node.roles.il)
        il.command(il.self, line);
    if (node.roles.ol)
        ol.command(ol.self, line);
    if (node.roles.traffic)
        node.traffic.command(node.traffic.self, line);
}

static void obey(void)
{
    char line[64];
    bool finished = false;
    while (fgets(line, sizeof(line), stdin)) {
        line[strcspn(line, "\r\n")] = '\0';
        if (strcmp(line, "finish") == 0) {
            finish();
            finished = true;
        }
        /* At once: a link must not be torn down while its other end may be in use, and what DPDK
         * leaves behind lies in a directory that is removed with the run's. */
        if (strcmp(line, "exit") == 0 && finished)
            _exit(0);
        if (strcmp(line, "snapshot") == 0 && node.roles.replica && node.config.mode == MODE_FTMB)
            state_sender_asked(&node.replica);
        else if (strcmp(line, "telemetry") == 0 && !finished)
            emit_telemetry();
        else if (!obey_fault(line) && !finished)
            tell_roles(line);
    }
    die(5, "the process that started this one is gone (end of stdin)");
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "--describe") == 0) {
        spec_describe();
        return 0;
    }
    if (argc != 2) {
        fprintf(stderr, "usage: ftmb-node SPEC.json | --describe\n");
        return 2;
    }
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    ftmb_panic = invariant_broken;
    spec_read(argv[1], &node.config);
    event_process(node.config.process);
    find_roles();
    /* Every thread inherits it. A data plane that has its cores to itself also has the right of way
     * on them, where that is permitted. */
    if (node.config.yield) {
        do_without_large_pages();
        ask_for_short_slices();
        ftmb_breathe = give_way;
    } else {
        (void)setpriority(PRIO_PROCESS, 0, DATA_PLANE_NICENESS);
    }
    int niceness = getpriority(PRIO_PROCESS, 0);
    if (node.config.apart && control_use_token(node.config.hosts.token))
        _exit(3);
    start_dpdk();
    links_open(&node.links, &node.config, node.roles);
    create_roles();
    launch();
    /* A logger that was restarted comes back to a running system: some slots may be dead. */
    if (!node.il.recovered && !node.ol.recovered && !links_wait(&node.links, LINKS_TIMEOUT_MS))
        die(3, "a peer did not connect within %d s", LINKS_TIMEOUT_MS / 1000);
    /* This thread only listens from here on. And when a replica is killed, its last thread is the
     * one that returns the memory, milliseconds of work: let it be this one, behind all others, who
     * recover meanwhile. For a logger that comes back all have to wait. */
    if (node.roles.replica)
        (void)setpriority(PRIO_PROCESS, 0, 19);
    event_emit("ready", "{s:i,s:i,s:b}", "pid", (int)getpid(), "niceness", niceness, "large_pages",
               prctl(PR_GET_THP_DISABLE, 0ul, 0ul, 0ul, 0ul) == 0);
    obey();
}
