"""Does brewlens tell the truth? Simulated nulls, planted models, and the coverage of its intervals."""
