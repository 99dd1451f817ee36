"""Pictures of results: plots and the Perfetto trace."""
