"""Who is trusted over the network: certificates of clients, join tokens and the trust password."""
