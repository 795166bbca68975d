"""The use cases and the ports they need. Domain and asyncio only."""
