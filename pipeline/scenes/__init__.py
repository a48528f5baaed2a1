"""Classes, safe image reading, the index and its labels; no human mask is reachable from here."""
