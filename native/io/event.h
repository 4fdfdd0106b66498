/* What a process tells the runner: one JSON object per line on stdout. */
#ifndef FTMB_IO_EVENT_H
#define FTMB_IO_EVENT_H

/* Name this process in every later event (copied). Call before the first event. */
void event_process(const char *process);

/* Write {"t_ns", "process", "event": name, ...}. `fmt` and the arguments are jansson's
 * json_pack() for an object with the remaining fields, e.g. "{s:I,s:s}", "epoch", (json_int_t)e,
 * "kind", "death"; or NULL for none. Thread safe; one write(2) per line. A format that does not
 * pack is a bug and ends the process. A reader that went away is ignored. */
void event_emit(const char *name, const char *fmt, ...);

/* The same for what comes with each snapshot, and nothing follows from at once: several in one
 * line,
 * {"routine": [event, ...]}, written before the next other event, or by event_flush(), 250 ms after
 * the last write at the latest. Whoever reads takes time from the cores that are measured: waking
 * up for each, and taking it apart, which can wait until the end. Lost if the process is killed. */
void event_routine(const char *name, const char *fmt, ...);

/* Whoever uses event_routine() calls this every few milliseconds. */
void event_flush(void);

/* End the process with `code` (exit codes: see app/): one line "ftmb-node: ..." on stderr, a
 * `fatal` event, then _exit() without running exit handlers, since other threads still run. */
_Noreturn void die(int code, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
