"""How fast is it, and what does it cost? One module per question; see README.md for the answers."""
