//! Sandboxes that are other processes, as the gateway shows them to who operates it.

/// What a gateway shows of the sandboxes that it calls.
pub trait Downstream: Send + Sync {
    /// Whether there are any.
    fn is_ready(&self) -> bool;

    /// What is counted of them, in the Prometheus text format.
    fn metrics(&self) -> String;
}
