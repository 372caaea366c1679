//! Names of functions: an account has one of each.

use std::collections::HashSet;

use cloudserve_store::transfer::StoredFunction;

use super::versions::{Short, short};

/// The names there were so far: some 20 bytes for each.
#[derive(Default)]
pub(in crate::admin) struct Names(HashSet<Short>);

impl Names {
    /// Learns of a function. `false`: its account had one of this name before.
    pub(in crate::admin) fn add(&mut self, function: &StoredFunction) -> bool {
        self.0.insert(short(&format!("{} {}", function.user_id, function.name)))
    }
}
