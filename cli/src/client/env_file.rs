//! Files of lines `NAME=value`.

use std::fs;
use std::path::Path;

use serde_json::{Map, Value};

use super::error::ClientError;

/// The environment that one holds.
pub(crate) fn read_env_file(path: &Path) -> Result<Map<String, Value>, ClientError> {
    let text = fs::read_to_string(path).map_err(ClientError::file(path))?;
    let mut all = Map::new();
    // Editors of Windows mark the beginning of a text.
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let wrong = |what: &str| ClientError::Project {
            path: path.to_owned(),
            // The line may hold a secret.
            message: format!("line {} {what}", number + 1),
            hint: None,
        };
        let exported = line.strip_prefix("export");
        let exported = exported.filter(|rest| rest.starts_with(char::is_whitespace));
        let line = exported.unwrap_or(line);
        let (name, value) = line.split_once('=').ok_or_else(|| wrong("is not NAME=value"))?;
        let value = unquoted(value).map_err(wrong)?;
        all.insert(name.trim().to_owned(), value.into());
    }
    Ok(all)
}

/// A value without its quotes or a comment; or what is wrong with its line. The dashboard reads them
/// alike (`dashboard/src/lib/dotenv.ts`).
fn unquoted(text: &str) -> Result<String, &'static str> {
    const OPEN: &str = "has a quote that is not closed";
    let value = text.trim();
    let Some(quote @ ('"' | '\'')) = value.chars().next() else {
        // A comment is what comes after whitespace.
        let mut hashes = text.match_indices('#').map(|(at, _)| &text[..at]);
        let before = hashes.find(|before| before.ends_with(char::is_whitespace));
        return Ok(before.unwrap_or(text).trim().to_owned());
    };
    let mut rest = value[1..].chars();
    let mut inside = String::new();
    loop {
        match rest.next().ok_or(OPEN)? {
            end if end == quote => break,
            '\\' if quote == '"' => match rest.next().ok_or(OPEN)? {
                'n' => inside.push('\n'),
                escaped @ ('"' | '\\') => inside.push(escaped),
                other => inside.extend(['\\', other]),
            },
            other => inside.push(other),
        }
    }
    let after = rest.as_str().trim_start();
    if after.is_empty() || after.starts_with('#') {
        Ok(inside)
    } else {
        Err("has more than a comment after its closing quote")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn environment_files_are_read() {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in [
            (".env", "# a\n\nA=1\nexport B = two words # why\nC='a # b'\nD=\"x\\ny\"\nE=\nF=a=b\n"),
            ("comments", "A=1\t# c\nB= # c\nC=#1\nD=a#b \t # c # d\nexport\tE=x \u{a0}# c\n"),
            ("windows", "\u{feff}A=1\r\nB=\"x y\"\r\n"),
            (
                "quoted",
                r#"A="s3cret" # prod
                B='it "is"'#c
                C="C:\\new"
                D="say \"hi\" \d # no comment"
                E=""
                F='\n'
                G=it's
                "#,
            ),
        ] {
            fs::write(dir.path().join(name), text).unwrap();
        }
        let read = |name: &str| read_env_file(&dir.path().join(name));
        let expected = json!({
            "A": "1", "B": "two words", "C": "a # b", "D": "x\ny", "E": "", "F": "a=b",
        });
        assert_eq!(Value::Object(read(".env").unwrap()), expected);
        let expected = json!({ "A": "1", "B": "", "C": "#1", "D": "a#b", "E": "x" });
        assert_eq!(Value::Object(read("comments").unwrap()), expected);
        let expected = json!({ "A": "1", "B": "x y" });
        assert_eq!(Value::Object(read("windows").unwrap()), expected);
        let expected = json!({
            "A": "s3cret", "B": "it \"is\"", "C": r"C:\new", "D": r#"say "hi" \d # no comment"#,
            "E": "", "F": r"\n", "G": "it's",
        });
        assert_eq!(Value::Object(read("quoted").unwrap()), expected);
        for (line, says) in [
            ("secret without a name", "line 2 is not"),
            (r#"B="secret"#, "line 2 has a quote"),
            (r#"B="secret\""#, "line 2 has a quote"),
            ("B='", "line 2 has a quote"),
            (r#"B="secret" secret"#, "line 2 has more"),
            ("B='secret''secret'", "line 2 has more"),
        ] {
            fs::write(dir.path().join("bad"), format!("A=1\n{line}\n")).unwrap();
            let error = read("bad").unwrap_err().to_string();
            assert!(error.contains(says), "{line}: {error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
