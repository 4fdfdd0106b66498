"""FTMB: rollback recovery for middleboxes. This package runs trials, records and reports them."""

__version__ = "0.1.0"
