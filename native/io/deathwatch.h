/* Learn within microseconds that a process died: it holds a robust mutex in a shared file, and the
 * kernel hands the mutex to a waiter when the holder dies. That happens before the dead process's
 * memory is torn down, whereas sockets and pidfds report only afterwards. */
#ifndef FTMB_IO_DEATHWATCH_H
#define FTMB_IO_DEATHWATCH_H

#include "io/crash.h"

/* Hold a new mutex at `path` (replaced atomically, mode 0600) for the life of this process, on a
 * thread of its own, and keep the process's crash record beside it. Call once per process. Returns
 * 0 or a negative errno. */
int deathwatch_hold(const char *path);

/* Watch the holder of `path`: a thread calls on_death(arg) once, when the holder dies for whatever
 * reason (also if it was dead already). Other watchers in any process hear of it as well.
 * Returns a watch number >= 0 for deathwatch_stop(), or a negative errno (-ENOENT: nobody has held
 * `path` yet, -EMFILE: too many watches). */
int deathwatch_start(const char *path, void (*on_death)(void *arg), void *arg);

/* What the process of this watch left in its crash record. False: nothing; it lives, was killed
 * from outside, or had no input in hand. */
bool deathwatch_crash(int watch, struct crash_record *record);

/* End a watch and free its number; afterwards on_death does not run any more. Waits for the watch
 * thread (up to 50 ms, and for a running on_death), so it must not be called from on_death. */
void deathwatch_stop(int watch);

#endif
