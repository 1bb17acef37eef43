"""refloat's vocabulary: values, contracts, errors, clock and registry; it knows no cluster, store or orchestrator."""

__version__ = "0.1.0"
