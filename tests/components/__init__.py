"""The real servers that tests run against: how each is found, started, frozen, killed and stopped."""
