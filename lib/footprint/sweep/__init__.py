"""Many runs: planned, priced, executed, kept and reported."""
