"""How one run is trained and watched."""
