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
#include <sys/stat.h>
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

/* How often the files are looked at. Not inotify: when a process with one dies, the kernel waits
 * for its own workers, which pollers keep from the CPUs, for seconds, and the next one waits with
 * it. */
#define LOOK_NS 4000000

static struct watched {
    char path[108]; /* "": free */
    uint16_t port;
    uint64_t mark;
    bool pending; /* a new socket is there */
    uint64_t until_ns;
} watched[WATCHED];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static bool started;

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

/* Tells one socket file from the next at the same path; 0: there is none. (A file system may give
 * the next one the same inode.) */
static uint64_t mark_of(const char *path)
{
    struct stat st;
    if (stat(path, &st) != 0)
        return 0;
    uint64_t born = (uint64_t)st.st_ctim.tv_sec * 1000000000u + (uint64_t)st.st_ctim.tv_nsec;
    return (born ^ ((uint64_t)st.st_ino << 32)) | 1;
}

/* A server removes the file of the one before it and makes its own. */
static void look_for_new(void)
{
    pthread_mutex_lock(&lock);
    for (struct watched *w = watched; w < watched + WATCHED; w++) {
        uint64_t mark = w->path[0] ? mark_of(w->path) : 0;
        if (mark && mark != w->mark) {
            w->mark = mark;
            w->pending = true;
            w->until_ns = clock_ns() + GIVE_UP_NS;
        }
    }
    pthread_mutex_unlock(&lock);
}

static void *watch(void *arg)
{
    (void)arg;
    const struct timespec look = {.tv_nsec = LOOK_NS}, pause = {.tv_nsec = RETRY_NS};
    for (;;) {
        nanosleep(&look, NULL);
        look_for_new();
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
    sigaction(WAKE_SIGNAL, &wake, NULL);
    int error = pthread_create(&thread, NULL, watch, NULL);
    if (error == 0)
        pthread_setname_np(thread, "reconnect");
    started = error == 0;
    return error;
}

static int add(uint16_t port, const char *path)
{
    struct watched *w = watched;
    while (w < watched + WATCHED && w->path[0])
        w++;
    if (w == watched + WATCHED || strlen(path) >= sizeof(w->path))
        return ENOSPC;
    int error = started ? 0 : start();
    if (error)
        return error;
    pthread_mutex_lock(&lock);
    *w = (struct watched){.port = port, .mark = mark_of(path)};
    strcpy(w->path, path);
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
        if (w->path[0] && w->port == port)
            *w = (struct watched){0};
    pthread_mutex_unlock(&lock);
}
