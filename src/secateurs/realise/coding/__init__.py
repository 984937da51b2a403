"""How small is the file? Index streams, entropy coders and one container, with a ledger."""
