"""Against what people run today: conntrackd, nftables and keepalived beside FTMB, same traffic."""
