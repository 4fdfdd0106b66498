"""Where roles and real endpoints stand: hosts, cables and switches of this machine's kernel."""
