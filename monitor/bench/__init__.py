"""`modelwarden bench`: what an event costs on this machine, stage by stage, through a real broker."""
