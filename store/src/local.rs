//! Objects as local files.
