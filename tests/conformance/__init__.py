"""How the results of the official suite are judged."""
