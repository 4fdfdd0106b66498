/* Engine `page`: the kernel knows which pages were written to. The arena is write-protected through
 * userfaultfd in its asynchronous mode, where a first write costs a fault that the kernel resolves
 * by itself; PAGEMAP_SCAN tells the pages written to and protects them again, in one call. Everyone
 * stands while that is done and those pages are copied. No store has to be marked; the price is a
 * fault for each first write to a page, whole pages in the delta, and small pages for the arena. */
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "roles/snapshotter.h"

#define PAGE 4096u
#define LINES_A_PAGE (PAGE / ARENA_LINE)

/* Linux 6.7; newer than the headers that this may be built with. */
#define FEATURE_WP_UNPOPULATED (1ull << 13)
#define FEATURE_WP_ASYNC (1ull << 15)
#define SCAN_WP_MATCHING (1ull << 0)
#define SCAN_CHECK_WPASYNC (1ull << 1)
#define PAGE_WRITTEN (1ull << 1)

struct scan_region {
    uint64_t start, end, categories;
};

struct scan_arg {
    uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages;
    uint64_t category_inverted, category_mask, category_anyof_mask, return_mask;
};
#define SCAN _IOWR('f', 16, struct scan_arg)

#define REGIONS 512u

static int open_userfault(void)
{
    int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);
    struct uffdio_api api = {.api = UFFD_API,
                             .features = UFFD_FEATURE_PAGEFAULT_FLAG_WP | FEATURE_WP_UNPOPULATED |
                                         FEATURE_WP_ASYNC};
    if (fd >= 0 && ioctl(fd, UFFDIO_API, &api) == 0)
        return fd;
    int error = errno;
    if (fd >= 0)
        close(fd);
    return -error;
}

/* Pages of a range that were written to since the last call; with `regions` NULL only asks whether
 * the kernel can tell. Returns the regions, or a negative errno; *at moves behind them. */
static int scan(int pagemap, uint64_t *at, uint64_t end, struct scan_region *regions)
{
    struct scan_arg arg = {.size = sizeof(arg),
                           .flags = SCAN_WP_MATCHING | SCAN_CHECK_WPASYNC,
                           .start = *at,
                           .end = end,
                           .vec = (uint64_t)regions,
                           .vec_len = regions ? REGIONS : 0,
                           .category_mask = PAGE_WRITTEN,
                           .return_mask = PAGE_WRITTEN};
    int found = ioctl(pagemap, SCAN, &arg);
    if (found < 0)
        return -errno;
    *at = arg.walk_end;
    return found;
}

const char *snapshot_page_missing(void)
{
    int fd = open_userfault();
    if (fd == -EPERM)
        return "userfaultfd is not permitted here: run as root, or set the sysctl "
               "vm.unprivileged_userfaultfd to 1";
    if (fd < 0)
        return "the kernel has no asynchronous write protection by userfaultfd (Linux 6.7)";
    close(fd);
    int pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    uint64_t nothing = 0;
    int error = pagemap < 0 ? -errno : scan(pagemap, &nothing, 0, NULL);
    if (pagemap >= 0)
        close(pagemap);
    return error == -ENOTTY || pagemap < 0 ? "the kernel has no PAGEMAP_SCAN (Linux 6.7)" : NULL;
}

static int init(struct snapshotter *s)
{
    struct uffdio_register range = {
        .range = {.start = (uint64_t)s->arena, .len = align_up(s->arena->size, PAGE)},
        .mode = UFFDIO_REGISTER_MODE_WP};
    s->page_fd = open_userfault();
    s->pagemap_fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    s->again = snapshotter_map(s->arena->size / PAGE + 1, "the pages to send");
    if (s->page_fd < 0 || s->pagemap_fd < 0 || !s->again ||
        ioctl(s->page_fd, UFFDIO_REGISTER, &range) != 0) {
        fprintf(stderr, "ftmb-node: cannot have the state write-protected: %s\n", strerror(errno));
        return -ENOSYS;
    }
    return 0;
}

static void want_pages(struct snapshotter *s, uint64_t offset, uint64_t length)
{
    for (uint64_t page = offset / PAGE; page * PAGE < offset + length; page++)
        s->again[page] = 1;
}

/* Also protects them, so that the next scan tells what was written to after this one. Only what is
 * allocated: extents begin and end with a page. */
static int find_written(struct snapshotter *s, bool wanted)
{
    struct scan_region regions[REGIONS];
    struct snapshot_slice all = {0, snapshot_lines(s->arena->size)};
    uint64_t base = (uint64_t)s->arena, next = 0, offset, length;
    while (snapshot_range(s->arena, all, &next, &offset, &length)) {
        uint64_t at = base + offset, end = align_up(at + length, PAGE);
        while (at < end) {
            int found = scan(s->pagemap_fd, &at, end, regions);
            if (found < 0)
                return found;
            for (int i = 0; i < found && wanted; i++)
                want_pages(s, regions[i].start - base, regions[i].end - regions[i].start);
        }
    }
    return 0;
}

static bool copy_page(struct snapshotter *s, uint64_t page)
{
    struct snapshot_slice lines = {page * LINES_A_PAGE, LINES_A_PAGE};
    uint64_t at = 0, offset, length;
    s->again[page] = 0;
    while (snapshot_range(s->arena, lines, &at, &offset, &length)) {
        if (!delta_add(&s->delta, offset, (const uint8_t *)s->arena + offset, length))
            return false;
    }
    return true;
}

static bool copy_pages(struct snapshotter *s)
{
    uint64_t pages = s->arena->size / PAGE;
    for (uint64_t page = 0; page < pages; page++) {
        const uint8_t *next = memchr(s->again + page, 1, pages - page);
        if (!next)
            break;
        page = (uint64_t)(next - s->again);
        if (!copy_page(s, page))
            return false;
    }
    return true;
}

/* What was written to since then is found at the cut; what was before, slices bring. Workers go on
 * meanwhile: the first time this protects everything. */
static void forget(struct snapshotter *s)
{
    (void)find_written(s, false); /* an error comes again at the cut */
    memset(s->again, 0, s->arena->size / PAGE);
}

static int begin(struct snapshotter *s)
{
    uint64_t at = 0, offset, length;
    while (snapshot_range(s->arena, s->name.slice, &at, &offset, &length))
        want_pages(s, offset, length);
    snapshotter_stop(s);
    int error = find_written(s, true);
    bool copied = delta_begin(&s->delta, s->name, s->header) && copy_pages(s) &&
                  (!s->check || delta_hash(&s->delta, s->arena));
    snapshotter_go(s);
    return error ? error : copied ? 0 : -ENOMEM;
}

static void settle(struct snapshotter *s, bool committed)
{
    struct delta_walk walk = {0};
    struct delta_run run;
    const uint8_t *content;
    while (!committed && delta_next(s->delta.bytes, &walk, &run, &content))
        want_pages(s, run.offset, run.length);
}

static enum snapshot_step step(struct snapshotter *s)
{
    if (delta_finish(&s->delta))
        return STEP_DONE;
    settle(s, false);
    return STEP_LOST;
}

/* Nothing was protected before the first snapshot. */
static bool start_from(struct snapshotter *s, const struct arena *base)
{
    (void)s;
    (void)base;
    return false;
}

const struct snapshot_engine snapshot_page = {.name = "page",
                                              .slice_bytes = 512u << 10,
                                              .init = init,
                                              .forget = forget,
                                              .begin = begin,
                                              .step = step,
                                              .settle = settle,
                                              .start_from = start_from};
