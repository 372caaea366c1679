//! JSON that anybody may send, read within a bound of what it takes in memory.
//!
//! Once it is read it can be a hundred times as long: `{"":0}` takes more than six hundred bytes. So the
//! values of a text are counted before they are made.

use serde_json::Value;

/// What an object or a list counts, and what the name of an entry does: they take as much as so many
/// values in a list, each of which takes 32 bytes.
const CONTAINER: usize = 20;
const NAME: usize = 2;

/// Why a text is not read, in words that follow its name.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unread {
    #[error("is not JSON: {0}")]
    Syntax(serde_json::Error),
    #[error("holds more objects, lists and values than are taken")]
    TooMany,
}

/// Reads a text that counts at most so many values.
pub(crate) fn read(text: &str, max_values: usize) -> Result<Value, Unread> {
    if count(text) > max_values {
        return Err(Unread::TooMany);
    }
    serde_json::from_str(text).map_err(Unread::Syntax)
}

/// What is counted of a text that is no JSON does not matter.
fn count(text: &str) -> usize {
    let (mut counted, mut is_string, mut is_escaped) = (0, false, false);
    for byte in text.bytes() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = is_string,
            b'"' => is_string = !is_string,
            b'{' | b'[' if !is_string => counted += CONTAINER,
            b':' if !is_string => counted += NAME,
            b',' if !is_string => counted += 1,
            _ => {}
        }
    }
    counted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_takes_memory_is_counted_and_text_is_not() {
        for (text, counted) in [
            ("1", 0),
            ("[1,2,3]", CONTAINER + 2),
            (r#"{"a":{"b":[]},"c":1}"#, 3 * CONTAINER + 3 * NAME + 1),
            (r#""[{,:,""#, 0),
            (r#"{"a\"{[":"\\","b\\":"\\\"{,"}"#, CONTAINER + 2 * NAME + 1),
        ] {
            assert!(serde_json::from_str::<Value>(text).is_ok(), "{text}");
            assert_eq!(count(text), counted, "{text}");
            assert!(read(text, counted).is_ok(), "{text}");
            assert_eq!(read(text, counted.wrapping_sub(1)).is_err(), counted > 0, "{text}");
        }
        assert!(matches!(read("[", 100), Err(Unread::Syntax(error)) if error.is_eof()));
        assert!(matches!(read("[1]", 0), Err(Unread::TooMany)));
    }
}
