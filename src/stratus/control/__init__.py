"""What a user may ask (commands), and what makes it true (reconcilers). Knows only the store."""
