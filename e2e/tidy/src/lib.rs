//! Reads the source: layering, generated files, habits.
