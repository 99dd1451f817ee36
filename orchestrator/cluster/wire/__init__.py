"""The wire: protocol, services and the one translator of messages."""
