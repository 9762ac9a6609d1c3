"""What is around a screen: header, footer, help, palette, popups."""
