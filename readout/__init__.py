"""The work of a readout: spec, logs, reduction, checks, estimates, decision, memo."""
