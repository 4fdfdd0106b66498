/* The network functions of this build. */
#include "nf/nf.h"

extern const struct nf nf_chain;
extern const struct nf nf_firewall;
extern const struct nf nf_ids;
extern const struct nf nf_lb;
extern const struct nf nf_monitor;
extern const struct nf nf_monitor_pthread;
extern const struct nf nf_mortal;
extern const struct nf nf_nat;
extern const struct nf nf_nat_pthread;
extern const struct nf nf_ratelimit;
extern const struct nf nf_wanopt;

/* One a line, so that another one changes no other line. */
/* clang-format off */
const struct nf *const nf_registry[] = {
    &nf_monitor,
    &nf_nat,
    &nf_ratelimit,
    &nf_firewall,
    &nf_lb,
    &nf_wanopt,
    &nf_ids,
    &nf_chain,
#ifndef FTMB_SIM /* many replicas in one process: none has an address of its own */
    &nf_monitor_pthread,
    &nf_nat_pthread,
#endif
    &nf_mortal,
    NULL,
};
/* clang-format on */

const struct nf *nf_find(const char *name)
{
    for (unsigned i = 0; nf_registry[i]; i++) {
        if (strcmp(nf_registry[i]->name, name) == 0)
            return nf_registry[i];
    }
    return NULL;
}
