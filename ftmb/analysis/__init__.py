"""From records to numbers: tables, intervals, verdicts.

Everything here is a pure function of the records under a results directory. Nothing in it starts a
process or knows the testbed, so that records made elsewhere can be analysed anywhere.
"""
