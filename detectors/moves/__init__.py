"""How single clients move from query to query: the second stage, which tells attackers from honest look-alikes."""
