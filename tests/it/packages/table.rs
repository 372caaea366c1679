//! The cases: a function and, in the comment at its head, what is to come of it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::support::Answer;

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/functions/packages");

/// The servers the functions talk to; no function.
pub(super) const UPSTREAM: &str = "upstream.mjs";

/// One package, or one use of it.
#[derive(Debug, Clone)]
pub(super) struct Case {
    pub(super) file: String,
    pub(super) code: String,
    pub(super) package: String,
    pub(super) version: String,
    /// Other packages it needs.
    also: BTreeMap<String, String>,
    pub(super) tree: String,
    pub(super) exercises: String,
    /// Names of servers.
    pub(super) needs: Vec<String>,
    pub(super) env: BTreeMap<String, String>,
    pub(super) limits: Value,
    pub(super) request: Value,
    expect: Value,
    /// What its log must have.
    pub(super) log: Option<String>,
    /// It cannot work; the refusal must name this instead.
    pub(super) refused: Option<String>,
}

/// All of them, by file name.
pub(super) fn read() -> Vec<Case> {
    let mut files: Vec<_> =
        fs::read_dir(FOLDER).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.retain(|path| path.file_name().is_some_and(|name| name != UPSTREAM));
    files.iter().map(|path| parse(path)).collect()
}

/// The packages of each tree.
pub(super) fn trees(cases: &[Case]) -> BTreeMap<String, BTreeMap<String, String>> {
    let mut trees = BTreeMap::<String, BTreeMap<String, String>>::new();
    for case in cases {
        let tree = trees.entry(case.tree.clone()).or_default();
        for (name, version) in case.also.iter().chain([(&case.package, &case.version)]) {
            let other = tree.insert(name.clone(), version.clone()).filter(|v| v != version);
            assert_eq!(other, None, "{name} in tree {}", case.tree);
        }
    }
    trees
}

/// Where the servers of [`UPSTREAM`] are written.
pub(super) fn upstream() -> String {
    format!("{FOLDER}/{UPSTREAM}")
}

fn parse(path: &Path) -> Case {
    let file = path.file_name().unwrap().to_str().unwrap().to_owned();
    let code = fs::read_to_string(path).unwrap();
    let head = code.strip_prefix("/*---").and_then(|rest| rest.split_once("---*/"));
    let (head, _) = head.unwrap_or_else(|| panic!("{file} has no head"));
    let head: Value = serde_json::from_str(head).unwrap_or_else(|e| panic!("{file}: {e}"));
    let text = |field: &str| head[field].as_str().map(str::to_owned);
    let required = |field: &str| text(field).unwrap_or_else(|| panic!("{file}: no {field}"));
    let strings = |value: &Value| -> BTreeMap<String, String> {
        let entries = value.as_object().into_iter().flatten();
        entries.map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned())).collect()
    };
    let needs = head["needs"].as_array().into_iter().flatten();
    let case = Case {
        package: required("package"),
        version: required("version"),
        also: strings(&head["also"]),
        tree: required("tree"),
        exercises: required("exercises"),
        needs: needs.map(|name| name.as_str().unwrap().to_owned()).collect(),
        env: strings(&head["env"]),
        limits: head["limits"].clone(),
        request: head["request"].clone(),
        log: head["expect"]["log"].as_str().map(str::to_owned),
        expect: head["expect"].clone(),
        refused: text("refused"),
        code: code.clone(),
        file: file.clone(),
    };
    let asserts = ["json", "text", "startsWith"].iter().any(|kind| !case.expect[kind].is_null());
    assert!(asserts != case.refused.is_some(), "{file} expects nothing, or an answer and none");
    case
}

impl Case {
    /// The name of its function.
    pub(super) fn name(&self) -> String {
        self.file.replace(|c: char| !c.is_ascii_alphanumeric(), "-")
    }

    /// What is not as expected.
    pub(super) fn differences(&self, answer: &Answer) -> Vec<String> {
        let mut wrong = Vec::new();
        let expect = &self.expect;
        let status = expect["status"].as_u64().unwrap_or(200);
        if u64::from(answer.status) != status {
            wrong.push(format!("status {} instead of {status}: {}", answer.status, answer.text()));
        }
        for (name, value) in expect["headers"].as_object().into_iter().flatten() {
            let got = answer.header(name);
            if Some(got) != value.as_str() {
                wrong.push(format!("{name}: {got} instead of {value}"));
            }
        }
        let text = answer.text();
        let body: Value = serde_json::from_str(&text).unwrap_or_default();
        let is_right = match (&expect["json"], &expect["text"], &expect["startsWith"]) {
            (Value::Null, Value::String(expected), _) => text == *expected,
            (Value::Null, _, Value::String(start)) => text.starts_with(start.as_str()),
            (expected, ..) => body == *expected,
        };
        if !is_right {
            wrong.push(format!("body {text}"));
        }
        wrong
    }
}
