//! `/run/{user}/{function}{rest}`: which function a path means and what of it the function sees.
//!
//! The two names are percent-decoded and then must be names, the user's in lower case, in which all
//! are kept; the rest is passed on as it came, but in ASCII: whoever takes a character for a byte would
//! find line breaks and blanks in other text.
//! A decoded name that cannot be one (a NUL, `..`, an encoded `/`, 300 characters) is a name that
//! nobody has.

use std::borrow::Cow;

use cloudserve_protocol::ids::{FunctionName, UserName};
use percent_encoding::{CONTROLS, percent_decode_str, utf8_percent_encode};

/// A path under `/run`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct RunPath<'a> {
    /// `/run/{user}/{function}`, as it came.
    pub(crate) prefix: &'a str,
    /// `{user}/{function}`, decoded, the user in lower case.
    key: Cow<'a, str>,
    user_len: usize,
}

impl<'a> RunPath<'a> {
    /// `None`: not a path of this form.
    pub(crate) fn parse(path: &'a str) -> Option<Self> {
        const ROOT: &str = "/run/";
        let names = path.strip_prefix(ROOT)?;
        // Byte by byte: names are short, and a search is longer in beginning than they are to read.
        let until_slash = |text: &str| text.bytes().position(|b| b == b'/');
        let user = &names[..until_slash(names)?];
        let rest = &names[user.len() + 1..];
        let function = &rest[..until_slash(rest).unwrap_or(rest.len())];
        let length = user.len() + 1 + function.len();
        let prefix = &path[..ROOT.len() + length];
        let raw_key = &names[..length];
        let is_plain = !raw_key.bytes().any(|b| b == b'%');
        if is_plain && !user.bytes().any(|b| b.is_ascii_uppercase()) {
            return Some(Self { prefix, key: Cow::Borrowed(raw_key), user_len: user.len() });
        }
        let user = percent_decode_str(user).decode_utf8_lossy().to_ascii_lowercase();
        let function = percent_decode_str(function).decode_utf8_lossy();
        let key = Cow::Owned(format!("{user}/{function}"));
        Some(Self { prefix, key, user_len: user.len() })
    }

    /// Identifies the function among all paths. Names that are none have keys as well.
    pub(crate) fn key(&self) -> &str {
        &self.key
    }

    /// The user's name, decoded and in lower case, checked by nobody.
    pub(crate) fn user(&self) -> &str {
        &self.key[..self.user_len]
    }

    /// Both names, if both are names.
    pub(crate) fn names(&self) -> Option<(UserName, FunctionName)> {
        let function = &self.key[self.user_len + 1..];
        Some((self.user().parse().ok()?, function.parse().ok()?))
    }

    /// Path remainder and query as the function sees them.
    pub(crate) fn target(&self, path_and_query: &str) -> Cow<'static, str> {
        // The path that was parsed is how this text begins.
        let rest = path_and_query.get(self.prefix.len()..).unwrap_or_default();
        if matches!(rest, "" | "/") {
            return Cow::Borrowed("/");
        }
        let rest: Cow<'_, str> = utf8_percent_encode(rest, CONTROLS).into();
        Cow::Owned(if rest.starts_with('/') { rest.into_owned() } else { ["/", &*rest].concat() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(path_and_query: &str, expected: Option<(&str, &str, &str)>) {
        let path = path_and_query.split('?').next().unwrap();
        let parsed = RunPath::parse(path);
        let got = parsed.as_ref().and_then(|p| {
            let (user, function) = p.names()?;
            Some((user.to_string(), function.to_string(), p.target(path_and_query).into_owned()))
        });
        let expected = expected.map(|(u, f, t)| (u.to_owned(), f.to_owned(), t.to_owned()));
        assert_eq!(got, expected, "{path_and_query}");
    }

    #[test]
    fn names_are_decoded_and_the_rest_is_not() {
        check("/run/alice/hello", Some(("alice", "hello", "/")));
        check("/run/alice/hello?a=%20", Some(("alice", "hello", "/?a=%20")));
        check("/run/alice/hello/", Some(("alice", "hello", "/")));
        check("/run/alice/hello//a%2Fb/..?x", Some(("alice", "hello", "//a%2Fb/..?x")));
        check("/run/%61lice/h%65llo/z", Some(("alice", "hello", "/z")));
    }

    #[test]
    fn accounts_have_names_in_lower_case_and_functions_do_not() {
        check("/run/Alice/Hello/A?B", Some(("alice", "Hello", "/A?B")));
        check("/run/%41LICE/hello", Some(("alice", "hello", "/")));
        assert_eq!(RunPath::parse("/run/Alice/Hello").unwrap().prefix, "/run/Alice/Hello");
    }

    #[test]
    fn what_is_not_ascii_is_encoded() {
        check("/run/alice/hello/č?ü", Some(("alice", "hello", "/%C4%8D?%C3%BC")));
        check("/run/alice/hello?Ċ%C4=Ġ", Some(("alice", "hello", "/?%C4%8A%C4=%C4%A0")));
        check("/run/alice/hello/\u{7f}", Some(("alice", "hello", "/%7F")));
    }

    #[test]
    fn what_is_no_name_is_nobodys_name() {
        for path in [
            "/run/alice/a%2Fb",
            "/run/alice/%2E%2E",
            "/run/alice/..",
            "/run/alice/a%00",
            "/run/alice/%FF",
            "/run/alice/%",
            "/run/alice/",
            "/run//hello",
            &format!("/run/alice/{}", "x".repeat(300)),
        ] {
            assert!(RunPath::parse(path).is_some(), "{path}");
            check(path, None);
        }
        for path in ["/run", "/run/", "/run/alice", "/healthz", "", "*"] {
            assert!(RunPath::parse(path).is_none(), "{path}");
        }
    }
}
