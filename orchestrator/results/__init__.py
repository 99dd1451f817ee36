"""What a run leaves behind: tables, summaries, runs and sweeps as plain data, and their folder."""
