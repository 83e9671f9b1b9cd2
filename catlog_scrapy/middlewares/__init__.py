"""How fast a spider may start."""
