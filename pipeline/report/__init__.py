"""Everything that draws: overlays, charts, panels and the HTML page."""
