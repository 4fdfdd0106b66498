"""Traffic: profiles are data, templates are made with scapy, captures with real programs."""
