//! SQLite back ends.
