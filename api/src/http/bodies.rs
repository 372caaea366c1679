//! What requests send, for the description. Handlers read the fields one by one, with
//! [`super::fields::Fields`], so that everything that is wrong is said at once.

#![expect(dead_code, reason = "the types are read by the description alone")]

use std::collections::BTreeMap;

use serde::Deserialize;
use utoipa::ToSchema;

use super::schemas;

/// A new account.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(example = json!({
    "fullName": "Ada Lovelace", "userName": "ada", "email": "ada@example.org",
    "password": "correct horse battery"
}))]
pub(super) struct Registration {
    #[schema(min_length = 1, max_length = 100)]
    full_name: String,
    #[schema(min_length = 3, max_length = 39, pattern = "^[A-Za-z0-9][A-Za-z0-9_-]+$")]
    user_name: String,
    #[schema(max_length = 254)]
    email: String,
    #[schema(min_length = 8, max_length = 256)]
    password: String,
}

/// Who logs in: `email` or `userName`, and the password.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(example = json!({ "email": "ada@example.org", "password": "correct horse battery" }))]
pub(super) struct Login {
    email: Option<String>,
    user_name: Option<String>,
    password: String,
}

/// A key to be made.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(example = json!({ "name": "CI", "scopes": ["deploy", "read"] }))]
pub(super) struct NewApiKey {
    #[schema(min_length = 1, max_length = 100)]
    name: String,
    /// `invoke`, `deploy`, `read`; all of them if left out.
    scopes: Option<Vec<String>>,
    /// Names or ids of functions it is to be limited to; all if left out.
    #[schema(max_items = 100)]
    functions: Option<Vec<String>>,
    /// From when on it is refused; never if left out.
    #[schema(format = DateTime)]
    expires_at: Option<String>,
}

/// A deploy: `code` (with `filename`) or `files`. What is left out stays as it was.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(example = json!({
    "name": "hello", "filename": "hello.ts",
    "code": "export default { fetch: () => new Response('hello') };"
}))]
pub(super) struct NewDeploy {
    #[schema(min_length = 1, max_length = 64, pattern = "^[A-Za-z0-9][A-Za-z0-9_-]*$")]
    name: String,
    code: Option<String>,
    filename: Option<String>,
    #[schema(schema_with = schemas::files)]
    files: Option<serde_json::Value>,
    #[schema(schema_with = schemas::dependencies)]
    dependencies: Option<serde_json::Value>,
    #[schema(schema_with = schemas::npm_file)]
    package_json: Option<serde_json::Value>,
    #[schema(schema_with = schemas::npm_file)]
    package_lock: Option<serde_json::Value>,
    /// An empty one takes back what was given.
    entry: Option<String>,
    external: Option<Vec<String>>,
    env: Option<BTreeMap<String, String>>,
    /// `private` or `public`.
    visibility: Option<String>,
    #[schema(schema_with = schemas::changed_limits)]
    limits: Option<serde_json::Value>,
}

/// A change of a function: the fields of a deploy, except `name`.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(example = json!({ "visibility": "public" }))]
pub(super) struct FunctionUpdate {
    code: Option<String>,
    filename: Option<String>,
    #[schema(schema_with = schemas::files)]
    files: Option<serde_json::Value>,
    #[schema(schema_with = schemas::dependencies)]
    dependencies: Option<serde_json::Value>,
    #[schema(schema_with = schemas::npm_file)]
    package_json: Option<serde_json::Value>,
    #[schema(schema_with = schemas::npm_file)]
    package_lock: Option<serde_json::Value>,
    /// An empty one takes back what was given.
    entry: Option<String>,
    external: Option<Vec<String>>,
    env: Option<BTreeMap<String, String>>,
    /// `private` or `public`.
    visibility: Option<String>,
    #[schema(schema_with = schemas::changed_limits)]
    limits: Option<serde_json::Value>,
}

/// Which version to serve.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({ "version": 3 }))]
pub(super) struct Rollback {
    #[schema(minimum = 1)]
    version: u32,
}

/// A call of a function.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({ "method": "POST", "path": "/items?n=1", "body": "{}" }))]
pub(super) struct Invocation {
    /// `GET` if it is missing.
    method: Option<String>,
    /// What follows the function's name, with the query.
    path: Option<String>,
    headers: Option<BTreeMap<String, String>>,
    body: Option<String>,
}

/// Variables to set and to remove.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({ "set": { "API_TOKEN": "s3cret" }, "unset": ["OLD_TOKEN"] }))]
pub(super) struct EnvPatch {
    set: Option<BTreeMap<String, String>>,
    unset: Option<Vec<String>>,
}
