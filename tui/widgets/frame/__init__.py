"""What stands around a screen: header, footer, help, palette, popups."""
