/* One line that says what is wrong, for the person who has to mend it. */
#ifndef FTMB_TRAFFIC_WHY_H
#define FTMB_TRAFFIC_WHY_H

#define TRAFFIC_WHY 512

/* printf into `why` (of TRAFFIC_WHY bytes, may be NULL). */
__attribute__((format(printf, 2, 3))) void traffic_say(char *why, const char *format, ...);

/* The same with the value -1, to end a function with. */
#define traffic_why(...) (traffic_say(__VA_ARGS__), -1)

#endif
