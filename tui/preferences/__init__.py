"""What a user's settings mean to the app: keys, theme, columns, colours, device."""
