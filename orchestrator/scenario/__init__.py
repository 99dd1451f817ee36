"""The scenario: its schema, how it is loaded, and the plan that is drawn from it."""
