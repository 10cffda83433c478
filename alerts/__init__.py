"""Evidence of one cause becomes one incident, and incidents become messages."""
