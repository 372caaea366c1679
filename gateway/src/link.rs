//! One connection, as the requests that come over it know it.

use cloudserve_identity::ShownLast;

use crate::gateway::Peer;
use crate::patience::Patience;
use crate::route::FoundLast;

/// What is kept of a connection from one request to the next.
pub(crate) struct Link {
    /// The function that was called last.
    pub(crate) found: FoundLast,

    /// Who is at its other end.
    pub(crate) peer: Peer,

    /// Its alarm.
    pub(crate) patience: Patience,

    /// The credential that came last.
    pub(crate) shown: ShownLast,
}

impl Link {
    pub(crate) fn new(peer: Peer, patience: Patience) -> Self {
        Self {
            found: FoundLast::default(),
            peer,
            // Shared with hyper, which waits for the heads of requests by it.
            patience,
            shown: ShownLast::default(),
        }
    }
}
