"""Widgets that more than one screen uses; one small file each."""
