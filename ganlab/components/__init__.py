"""Components: found in installed plugins, described by their constructors, and started from templates."""
