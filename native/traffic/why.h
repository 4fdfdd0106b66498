/* One line that says what is wrong, for the person who has to mend it. */
#ifndef FTMB_TRAFFIC_WHY_H
#define FTMB_TRAFFIC_WHY_H

#define TRAFFIC_WHY 512

/* printf into `why` (of TRAFFIC_WHY bytes, may be NULL). Returns -1, to end a function with. */
__attribute__((format(printf, 2, 3))) int traffic_why(char *why, const char *format, ...);

#endif
