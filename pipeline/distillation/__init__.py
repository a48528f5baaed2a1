"""First encoder weights, distilled from CLIP's dense features."""
