"""What adaptation did: kept ranks and figures."""
