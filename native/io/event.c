/* Events as JSON lines on stdout (see event.h). */
#include "io/event.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <jansson.h>

#include "io/clock.h"

#define ROUTINE_NS 250000000ull /* what is routine waits so long to be written */

enum urgency { ROUTINE, AT_ONCE, DYING };

static char process_name[64] = "?";
static pthread_mutex_t write_lock = PTHREAD_MUTEX_INITIALIZER;

/* Routine events that wait, as the line that they will be but for its end. Guarded by the lock, as
 * is the time when something was last written. */
static const char batch_head[] = "{\"routine\":[", batch_tail[] = "]}\n";
static char waiting[16384];
static size_t waiting_length;
static uint64_t written_ns;

void event_process(const char *process)
{
    snprintf(process_name, sizeof(process_name), "%s", process);
}

/* Write all of it; gives up when the reader is gone, whom nothing can be told any more. */
static void write_all(const char *data, size_t length)
{
    while (length > 0) {
        ssize_t n = write(STDOUT_FILENO, data, length);

        if (n >= 0) {
            data += n;
            length -= (size_t)n;
        } else if (errno == EAGAIN) {
            struct pollfd wait = {.fd = STDOUT_FILENO, .events = POLLOUT};

            poll(&wait, 1, -1);
        } else if (errno != EINTR) {
            return;
        }
    }
}

/* Take the right to write. A dying process gives up after two seconds: it must get out even when a
 * thread is stuck writing to a full pipe. */
static bool take_turn(bool dying)
{
    const struct timespec pause = {.tv_nsec = 1000000};

    if (!dying)
        return pthread_mutex_lock(&write_lock) == 0;
    for (int i = 0; i < 2000; i++) {
        if (pthread_mutex_trylock(&write_lock) == 0)
            return true;
        nanosleep(&pause, NULL);
    }
    return false;
}

static void write_waiting(void)
{
    if (waiting_length == 0)
        return;
    size_t length = waiting_length - 1; /* without the last comma */
    memcpy(waiting + length, batch_tail, sizeof(batch_tail) - 1);
    write_all(waiting, length + sizeof(batch_tail) - 1);
    waiting_length = 0;
    written_ns = clock_ns();
}

static void put_off(const char *event, size_t length)
{
    if (waiting_length + length + sizeof(batch_tail) > sizeof(waiting))
        write_waiting();
    if (waiting_length == 0) {
        memcpy(waiting, batch_head, sizeof(batch_head) - 1);
        waiting_length = sizeof(batch_head) - 1;
    }
    memcpy(waiting + waiting_length, event, length);
    waiting_length += length;
    waiting[waiting_length++] = ',';
}

/* `line` ends with a newline. In order: whatever waited goes first. */
static void write_line(const char *line, size_t length, bool routine)
{
    if (routine && length < sizeof(waiting) / 2) {
        put_off(line, length - 1);
        if (clock_ns() - written_ns >= ROUTINE_NS)
            write_waiting();
        return;
    }
    write_waiting();
    write_all(line, length);
    written_ns = clock_ns();
}

/* Write one event line; steals `fields` (may be NULL). False when out of memory. */
static bool write_event(const char *name, json_t *fields, enum urgency urgency)
{
    json_t *event = json_pack("{s:I,s:s,s:s}", "t_ns", (json_int_t)clock_ns(), "process",
                              process_name, "event", name);
    char *line = NULL;

    if (event != NULL && (fields == NULL || json_object_update(event, fields) == 0))
        line = json_dumps(event, JSON_COMPACT);
    json_decref(fields);
    json_decref(event);
    if (line == NULL)
        return false;
    size_t length = strlen(line);
    line[length] = '\n'; /* over the terminator: the line is written by length */
    if (take_turn(urgency == DYING)) {
        write_line(line, length + 1, urgency == ROUTINE);
        pthread_mutex_unlock(&write_lock);
    }
    free(line);
    return true;
}

void event_flush(void)
{
    pthread_mutex_lock(&write_lock);
    if (clock_ns() - written_ns >= ROUTINE_NS)
        write_waiting();
    pthread_mutex_unlock(&write_lock);
}

static void emit(const char *name, const char *fmt, va_list args, enum urgency urgency)
{
    json_t *fields = NULL;
    json_error_t error;

    if (fmt != NULL) {
        fields = json_vpack_ex(&error, 0, fmt, args);
        if (fields == NULL || !json_is_object(fields))
            die(3, "event %s: format %s does not pack: %s", name, fmt, error.text);
    }
    if (!write_event(name, fields, urgency))
        die(3, "event %s: out of memory", name);
}

void event_emit(const char *name, const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    emit(name, fmt, args, AT_ONCE);
    va_end(args);
}

void event_routine(const char *name, const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    emit(name, fmt, args, ROUTINE);
    va_end(args);
}

static volatile sig_atomic_t dying_with;

static void on_abort(int signal)
{
    (void)signal;
    _exit(dying_with);
}

/* DPDK's own threads may stumble over what made this process give up (a link whose other end went
 * away in the middle of its set-up) and abort it before it is gone: the reason given here counts.
 */
void die(int code, const char *fmt, ...)
{
    char message[1024];
    va_list args;

    va_start(args, fmt);
    vsnprintf(message, sizeof(message), fmt, args);
    va_end(args);
    dying_with = code;
    (void)signal(SIGABRT, on_abort);
    fprintf(stderr, "ftmb-node: %s\n", message);
    write_event("fatal", json_pack("{s:s}", "message", message), DYING);
    _exit(code);
}
