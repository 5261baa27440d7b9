"""The figures of a report as inline SVG: drawn from plain numbers, readable without colour and without sight."""
