//! What the client commands take from the environment. Read here and nowhere else.

use std::env;
use std::path::PathBuf;

/// The API key commands use instead of a stored login.
pub(crate) const KEY_VARIABLE: &str = "CLOUDSERVE_API_KEY";
/// Where the API is.
pub(crate) const URL_VARIABLE: &str = "CLOUDSERVE_URL";
/// Where calls go, for keys that may not read it from the API.
pub(crate) const GATEWAY_VARIABLE: &str = "CLOUDSERVE_GATEWAY_URL";
/// What `login` uses instead of asking.
pub(crate) const PASSWORD_VARIABLE: &str = "CLOUDSERVE_PASSWORD";
/// Where npm keeps what it downloaded.
pub(crate) const NPM_CACHE_VARIABLE: &str = "CLOUDSERVE_NPM_CACHE";

/// Variables of the client commands; `serve` does not know them but must not warn of them.
pub(crate) const VARIABLES: [&str; 4] =
    [KEY_VARIABLE, URL_VARIABLE, GATEWAY_VARIABLE, PASSWORD_VARIABLE];

/// Variables that no program started from here may inherit.
pub(crate) const SECRETS: [&str; 2] = [KEY_VARIABLE, PASSWORD_VARIABLE];

/// A variable's text without whitespace around it, unless it is empty: for what has none.
pub(crate) fn text(name: &str) -> Option<String> {
    let value = env::var_os(name)?.into_string().ok()?;
    let value = value.trim();
    (!value.is_empty()).then(|| value.to_owned())
}

/// A variable's value as it is, but for the end of a line that a shell or a file may have left; unless
/// it is empty.
pub(crate) fn value(name: &str) -> Option<String> {
    let value = env::var_os(name)?.into_string().ok()?;
    let value = without_line_end(&value);
    (!value.is_empty()).then(|| value.to_owned())
}

/// A text without the end of its last line.
pub(crate) fn without_line_end(text: &str) -> &str {
    text.strip_suffix('\n').map_or(text, |rest| rest.strip_suffix('\r').unwrap_or(rest))
}

/// Where this user's settings are, by the XDG rules.
pub(crate) fn config_dir() -> Option<PathBuf> {
    xdg("XDG_CONFIG_HOME", ".config")
}

/// Where this user's caches are, by the XDG rules.
pub(crate) fn cache_dir() -> Option<PathBuf> {
    xdg("XDG_CACHE_HOME", ".cache")
}

/// Relative paths in these variables are to be ignored, says the specification.
fn xdg(variable: &str, below_home: &str) -> Option<PathBuf> {
    let absolute = |name| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let base = absolute(variable).or_else(|| Some(absolute("HOME")?.join(below_home)))?;
    Some(base.join("cloudserve"))
}

/// The program that opens web pages.
pub(crate) fn browser() -> String {
    text("BROWSER").unwrap_or_else(|| "xdg-open".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_value_one_end_of_a_line_goes_and_nothing_else() {
        for (given, expected) in [
            (" a b\t", " a b\t"),
            ("a\n", "a"),
            ("a\r\n", "a"),
            ("a\n\n", "a\n"),
            ("-----END KEY-----\n \n", "-----END KEY-----\n "),
            ("a\r", "a\r"),
            ("\n", ""),
        ] {
            assert_eq!(without_line_end(given), expected, "{given:?}");
        }
    }
}
