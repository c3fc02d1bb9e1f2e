"""What every rendered supervision shares: no method, no model."""
