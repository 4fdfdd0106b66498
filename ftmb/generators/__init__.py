"""Traffic generators behind one adapter; docs/GENERATORS.md.

`native` is a role of the data plane. Others are programs at the two sides of the middlebox, run by
`ftmb.generators.child`, which says and hears what the native role's process does: events as lines
of JSON, commands, and in the end its statistics. What a generator cannot know it does not tell.
"""
