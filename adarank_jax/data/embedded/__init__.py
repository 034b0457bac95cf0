"""Images that need no download: shipped inside packages, or drawn."""
