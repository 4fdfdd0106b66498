/* Quick reconnection of vhost-user clients (see reconnect.h). */
#include "io/reconnect.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "io/clock.h"
#include "io/port.h"

#define WATCHED 16
#define THREAD_NAME "vhost_reconn" /* the library's */
/* Ignored by default, so it is harmless to a thread that has died meanwhile. */
#define WAKE_SIGNAL SIGURG
/* The file appears with bind(), the server answers after the listen() that follows; and it takes
 * the library and the server some messages to agree. */
#define RETRY_NS 3000000
#define GIVE_UP_NS 2000000000ull

static struct watched {
    char file[64]; /* "" : free */
    uint16_t port;
    bool pending; /* a new socket is there */
    uint64_t until_ns;
} watched[WATCHED];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int notify_fd = -1;

static void on_wake(int signal)
{
    (void)signal;
}

/* The library's thread sleeps; a signal ends the sleep, and its next round begins. */
static void wake_library(void)
{
    static int thread;
    DIR *tasks = thread == 0 ? opendir("/proc/self/task") : NULL;
    struct dirent *task;
    while (tasks && (task = readdir(tasks)) != NULL) {
        char path[64 + NAME_MAX], name[32] = "";
        snprintf(path, sizeof(path), "/proc/self/task/%s/comm", task->d_name);
        FILE *file = fopen(path, "re");
        if (file && fgets(name, sizeof(name), file) &&
            strncmp(name, THREAD_NAME, strlen(THREAD_NAME)) == 0)
            thread = (int)strtol(task->d_name, NULL, 10);
        if (file)
            fclose(file);
    }
    if (tasks)
        closedir(tasks);
    if (thread != 0)
        syscall(SYS_tgkill, getpid(), thread, WAKE_SIGNAL);
}

/* Still waiting for a link whose server has come? */
static bool pending(void)
{
    bool any = false;
    uint64_t now = clock_ns();
    pthread_mutex_lock(&lock);
    for (struct watched *w = watched; w < watched + WATCHED; w++) {
        if (w->pending && (io_link_up(w->port) || now > w->until_ns))
            w->pending = false;
        any |= w->pending;
    }
    pthread_mutex_unlock(&lock);
    return any;
}

static void note_file(const char *file)
{
    pthread_mutex_lock(&lock);
    for (struct watched *w = watched; w < watched + WATCHED; w++) {
        if (w->file[0] && strcmp(w->file, file) == 0) {
            w->pending = true;
            w->until_ns = clock_ns() + GIVE_UP_NS;
        }
    }
    pthread_mutex_unlock(&lock);
}

static void read_notes(void)
{
    _Alignas(struct inotify_event) char buffer[4096];
    ssize_t size = read(notify_fd, buffer, sizeof(buffer));
    const struct inotify_event *event;
    for (char *at = buffer; at < buffer + size; at += sizeof(*event) + event->len) {
        event = (const struct inotify_event *)at;
        if (event->len)
            note_file(event->name);
    }
}

static void *watch(void *arg)
{
    (void)arg;
    const struct timespec pause = {.tv_nsec = RETRY_NS};
    for (;;) {
        read_notes();
        while (pending()) {
            wake_library();
            nanosleep(&pause, NULL);
        }
    }
    return NULL;
}

static int start(void)
{
    struct sigaction wake = {.sa_handler = on_wake, .sa_flags = SA_RESTART};
    pthread_t thread;
    notify_fd = inotify_init1(IN_CLOEXEC);
    if (notify_fd < 0)
        return errno;
    sigaction(WAKE_SIGNAL, &wake, NULL);
    int error = pthread_create(&thread, NULL, watch, NULL);
    if (error == 0)
        pthread_setname_np(thread, "reconnect");
    return error;
}

static int add(uint16_t port, const char *path)
{
    char directory[PATH_MAX];
    const char *slash = strrchr(path, '/');
    struct watched *w = watched;
    while (w < watched + WATCHED && w->file[0])
        w++;
    if (!slash || w == watched + WATCHED || strlen(slash + 1) >= sizeof(w->file))
        return ENOSPC;
    snprintf(directory, sizeof(directory), "%.*s", (int)(slash - path), path);
    int error = notify_fd < 0 ? start() : 0;
    if (error == 0 && inotify_add_watch(notify_fd, directory, IN_CREATE) < 0)
        error = errno;
    if (error)
        return error;
    pthread_mutex_lock(&lock);
    *w = (struct watched){.port = port};
    strcpy(w->file, slash + 1);
    pthread_mutex_unlock(&lock);
    return 0;
}

void reconnect_watch(uint16_t port, const char *path)
{
    int error = add(port, path);
    if (error)
        fprintf(stderr, "ftmb-node: %s: its server will be found again only slowly: %s\n", path,
                strerror(error));
}

void reconnect_forget(uint16_t port)
{
    pthread_mutex_lock(&lock);
    for (struct watched *w = watched; w < watched + WATCHED; w++)
        if (w->file[0] && w->port == port)
            *w = (struct watched){0};
    pthread_mutex_unlock(&lock);
}
