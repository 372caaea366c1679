//! What the faults of calls say to whoever owns the function.

use cloudserve_protocol::fault::{Fault, FaultClass};
use cloudserve_protocol::wire::MAX_HEAD_BYTES;

/// What V8 says when it has given a buffer up.
pub(super) const BUFFER_REFUSED: &str = "Array buffer allocation failed";

/// Longest message of a fault that user code words.
const MESSAGE_BYTES: usize = 1024;

/// Longest stack of a fault.
const DETAIL_BYTES: usize = 32 * 1024;

/// Stack frames of the bridge.
const OWN_FRAMES: &str = "ext:cloudserve/";

/// A fault in user code's own words: bounded, without the frames that are not the owner's, and
/// with the names the owner gave the sources.
pub(super) fn thrown(
    class: FaultClass,
    mut message: String,
    stack: &str,
    roots: [&str; 2],
) -> Fault {
    // Messages name files without a scheme.
    for root in
        roots.map(|root| root.trim_start_matches("file://")).iter().filter(|r| !r.is_empty())
    {
        message = message.replace(root, "");
    }
    message.truncate(message.floor_char_boundary(MESSAGE_BYTES));
    let mut detail = String::new();
    for line in stack.lines().filter(|line| !line.contains(OWN_FRAMES)) {
        let mut line = line.to_owned();
        for root in roots.iter().filter(|root| !root.is_empty()) {
            line = line.replace(root, "").replace(root.trim_start_matches("file://"), "");
        }
        if detail.len() + line.len() >= DETAIL_BYTES {
            break;
        }
        detail.push_str(&line);
        detail.push('\n');
    }
    detail.truncate(detail.trim_end().len());
    Fault::new(class, message).with_detail(detail)
}

pub(super) fn too_large(limit: &str, bytes: u64) -> Fault {
    Fault::new(
        FaultClass::ResponseTooLarge,
        format!("the function's answer is larger than {bytes} bytes (limits.{limit} raises it)"),
    )
}

pub(super) fn large_head() -> Fault {
    Fault::new(
        FaultClass::ResponseTooLarge,
        format!(
            "the function's answer is too large: its headers are larger than {MAX_HEAD_BYTES} bytes"
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stacks_are_the_owners() {
        let stack = "Error: x\n    at f (file:///b/src/a.ts:1:2)\n    at run (ext:cloudserve/main.js:1:1)\n";
        let fault = thrown(FaultClass::HandlerError, "é".repeat(600), stack, ["file:///b/", ""]);
        assert_eq!(fault.detail.as_deref(), Some("Error: x\n    at f (src/a.ts:1:2)"));
        assert_eq!(fault.message.len(), MESSAGE_BYTES);
    }
}
