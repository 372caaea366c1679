//! Local time: UTC, unless the function's environment says otherwise in `TZ`. What a function answers
//! does not depend on where its host is.
//!
//! ICU finds the time zone out once, from the environment or the files of the host, and keeps it: a
//! zygote for all workers.

use deno_core::v8;

/// What names a time zone in an environment.
pub(crate) const VARIABLE: &str = "TZ";

/// Makes it UTC, whatever it is on this host. No variable is left behind. To be called while nothing
/// of a function runs.
#[allow(clippy::disallowed_methods, reason = "this process is the function's, or nobody's yet")]
pub(crate) fn begin_with_utc(isolate: &mut v8::Isolate) {
    // SAFETY: no other thread of this process reads or writes the environment.
    unsafe { std::env::set_var(VARIABLE, "UTC") };
    find_out(isolate);
    // SAFETY: as above.
    unsafe { std::env::remove_var(VARIABLE) };
}

/// Makes it what the environment says.
pub(crate) fn find_out(isolate: &mut v8::Isolate) {
    isolate.date_time_configuration_change_notification(v8::TimeZoneDetection::Redetect);
}
