"""What became of each request, and how fast a spider may start."""
