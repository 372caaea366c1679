//! Identifiers and names. A value of one of these types has been checked; code that holds one does
//! not check again.

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

/// Why a text is not the identifier it was offered as. The message is fit for users.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseIdError {
    /// Not a UUID.
    #[error("{kind} must be a UUID")]
    NotUuid {
        /// Which identifier was expected.
        kind: &'static str,
    },
    /// A name with the wrong length or characters.
    #[error("{kind} must be {rule}")]
    BadName {
        /// Which name was expected.
        kind: &'static str,
        /// What such a name looks like.
        rule: &'static str,
    },
    /// Not 64 lower-case hexadecimal digits.
    #[error("{kind} must be 64 lower-case hexadecimal digits")]
    NotSha256 {
        /// Which hash was expected.
        kind: &'static str,
    },
}

/// Version 7 by method 3 of RFC 9562: milliseconds, then 12 bits of a finer clock, which never
/// stands still here, then 62 random bits. `Uuid::now_v7` asks the kernel for random bytes every time,
/// and there is an identifier for each call.
fn next_uuid(now: SystemTime) -> Uuid {
    static LAST: AtomicU64 = AtomicU64::new(0);
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let fraction = (u64::from(now.subsec_nanos() % 1_000_000) << 12) / 1_000_000;
    let now = u64::try_from(now.as_millis()).unwrap_or(0) << 12 | fraction;
    let later = |last: u64| now.max(last + 1);
    let last = LAST.fetch_update(Relaxed, Relaxed, |last| Some(later(last))).unwrap_or_default();
    let ticks = later(last);
    let high = (ticks >> 12) << 16 | 0x7000 | (ticks & 0xfff);
    Uuid::from_u64_pair(high, 1 << 63 | rand::random::<u64>() >> 2)
}

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident, $kind:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// A new identifier. Later ones sort after earlier ones (UUID version 7).
            #[must_use]
            #[allow(clippy::new_without_default)]
            pub fn new() -> Self {
                Self::new_at(SystemTime::now())
            }

            /// The same for who has just looked at the clock.
            #[must_use]
            pub fn new_at(now: SystemTime) -> Self {
                Self(next_uuid(now))
            }

            /// The 16 bytes, as they go over the wire.
            #[must_use]
            pub fn as_bytes(&self) -> &[u8; 16] {
                self.0.as_bytes()
            }

            /// Its text, in the room for it.
            #[must_use]
            pub fn text_in<'t>(&self, room: &'t mut [u8; 36]) -> &'t str {
                self.0.hyphenated().encode_lower(room)
            }

            /// The identifier with these 16 bytes.
            #[must_use]
            pub fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(Uuid::from_bytes(bytes))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.hyphenated().fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                Uuid::try_parse(text).map(Self).map_err(|_| ParseIdError::NotUuid { kind: $kind })
            }
        }
    };
}

uuid_id!(
    /// An account.
    UserId,
    "user id"
);
uuid_id!(
    /// A function, across all its versions.
    FunctionId,
    "function id"
);
uuid_id!(
    /// One invocation.
    ExecutionId,
    "execution id"
);
uuid_id!(
    /// An API key (the record, not the secret).
    ApiKeyId,
    "API key id"
);
uuid_id!(
    /// One entry of an account's audit trail.
    AuditId,
    "audit id"
);

macro_rules! checked_text {
    ($(#[$doc:meta])* $name:ident, |$text:ident| $check:expr, $error:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl TryFrom<String> for $name {
            type Error = ParseIdError;

            fn try_from($text: String) -> Result<Self, ParseIdError> {
                if $check { Ok(Self($text)) } else { Err($error) }
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                Self::try_from(text.to_owned())
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> String {
                value.0
            }
        }
    };
}

checked_text!(
    /// The unique, lower-case name of an account; the first path segment after `/run`.
    UserName,
    |text| is_name(&text, 3, 39, u8::is_ascii_lowercase),
    ParseIdError::BadName {
        kind: "userName",
        rule: "3 to 39 characters of a-z, 0-9, '-' and '_', starting with a letter or digit"
    }
);
checked_text!(
    /// The name of a function, unique per account; the second path segment after `/run`.
    FunctionName,
    |text| is_name(&text, 1, 64, u8::is_ascii_alphabetic),
    ParseIdError::BadName {
        kind: "name",
        rule: "1 to 64 characters of a-z, A-Z, 0-9, '-' and '_', starting with a letter or digit"
    }
);

fn is_name(text: &str, min: usize, max: usize, is_letter: fn(&u8) -> bool) -> bool {
    let bytes = text.as_bytes();
    (min..=max).contains(&bytes.len())
        && bytes.iter().all(|b| is_letter(b) || b.is_ascii_digit() || matches!(b, b'-' | b'_'))
        && bytes.first().is_some_and(|b| is_letter(b) || b.is_ascii_digit())
}

macro_rules! sha256_id {
    ($(#[$doc:meta])* $name:ident, $kind:literal) => {
        checked_text!(
            $(#[$doc])*
            $name,
            |text| text.len() == 64
                && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)),
            ParseIdError::NotSha256 { kind: $kind }
        );

        impl $name {
            /// The hash of these bytes.
            #[must_use]
            pub fn of(bytes: &[u8]) -> Self {
                Self(hex::encode(Sha256::digest(bytes)))
            }

            /// The hash a finished digest gives.
            #[must_use]
            pub fn from_digest(digest: [u8; 32]) -> Self {
                Self(hex::encode(digest))
            }
        }
    };
}

sha256_id!(
    /// SHA-256 of a function's source as it was sent.
    SourceHash,
    "sourceHash"
);
sha256_id!(
    /// SHA-256 of the bytes of `bundle.js`.
    BundleHash,
    "bundleHash"
);
sha256_id!(
    /// Identifies an exact resolved dependency set: equal hash, equal tree.
    DepHash,
    "depHash"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        for (text, ok) in [
            ("hello", true),
            ("Hello_World-2", true),
            ("a", true),
            ("", false),
            ("-a", false),
            ("a/b", false),
            ("..", false),
            ("a\0b", false),
            ("ü", false),
            (&"x".repeat(64), true),
            (&"x".repeat(65), false),
        ] {
            assert_eq!(text.parse::<FunctionName>().is_ok(), ok, "{text:?}");
        }
        assert!("Alice".parse::<UserName>().is_err());
        assert!("alice".parse::<UserName>().is_ok());
    }

    #[test]
    fn ids_round_trip_and_sort_by_age() {
        let (a, b) = (ExecutionId::new(), ExecutionId::new());
        let many: Vec<_> = (0..1_000).map(|_| next_uuid(SystemTime::now())).collect();
        assert!(a < b && many.is_sorted_by(|a, b| a < b));
        let (last, now) = (many[999], Uuid::now_v7());
        assert_eq!((last.get_version_num(), last.get_variant()), (7, uuid::Variant::RFC4122));
        let age = now.as_u64_pair().0.abs_diff(last.as_u64_pair().0) >> 16;
        assert!(age < 10_000, "{last} {now}");
        assert_eq!(a.to_string().parse::<ExecutionId>(), Ok(a));
        assert_eq!(a.text_in(&mut [0; 36]), a.to_string());
        assert!("nope".parse::<FunctionId>().is_err());
    }
}
